"""What the command line calls: build, plan, run, submit, watch, report on and export a sweep."""
