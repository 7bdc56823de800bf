"""What can go wrong with a repository.

GitError
└── PushRefused     what was pushed is not taken; the message is for its author
"""


class GitError(Exception):
    """git could not do it; the message names what it was about."""


class PushRefused(GitError):
    """What was pushed is not taken; the message says why and what to do."""
