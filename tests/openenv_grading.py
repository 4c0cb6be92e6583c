"""OpenEnv grades a package with the graders that it finds by entry point, and by its own command's checks:
`python openenv_grading.py PACKAGE [URL]` prints the status and evidence of each; a URL is where it runs."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

from openenv.validation import GraderRegistry, Level, Subject, run_validation
from openenv.validation.parsers.openenv_yaml import OpenEnvYamlParser
from openenv.validation.policy import load_policy
from openenv.validation.runtime.scheduler import execute_graders

root, url = Path(sys.argv[1]), sys.argv[2:]
registry = GraderRegistry()
assert registry.load_entry_points() == 5
running = SimpleNamespace(base_url=url[0]) if url else None
subject = Subject(root, OpenEnvYamlParser().parse(root), None, running, root / "outputs")
graded = execute_graders(registry.select(subject.manifest, Level.SEMANTIC), subject)
assert {one.check_id for one in graded} <= {entry.check_id for entry in load_policy("v2").entries}
found = {one.check_id: [one.status.value, one.evidence] for one in graded}
found |= {
    one.check_id: [one.status.value, one.evidence]
    for one in run_validation(root, max_level=Level.STATIC, skip_build=True).results
}
print(json.dumps(found))
