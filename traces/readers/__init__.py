"""The forms of logs that are read, a module each: each has FORMATS, which `vertigym.traces.formats` lists."""
