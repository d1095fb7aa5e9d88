"""The local stack: every role as a child process of one supervisor.

`stack.Stack` starts and stops them, `role` keeps one alive, `roles` says what they are, `state` is what
`stack.json` tells others.
"""
