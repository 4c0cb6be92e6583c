"""Decision tables in spreadsheets: files to pages, pages to tables, cells to tests, tables to a model."""
