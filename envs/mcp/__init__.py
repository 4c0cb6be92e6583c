"""Questions that are answered with the tools of an MCP server."""
