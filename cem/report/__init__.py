"""Tables, figures and the page. `results.aggregate` gathers a study's numbers, `page.write_report` shows them.

Nothing is imported here, so that gathering numbers does not pay for drawing them.
"""
