"""What people read: pages, tables, JUnit, summaries."""
