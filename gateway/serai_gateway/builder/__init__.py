"""The builder: the daemon that turns commits into versions, one at a time for each algorithm.

    gateway ──▶ builder     Push, Publish, Compile, Release, FirstParty
    builder ──▶ gateway     Said, Ended

Whatever comes in, a push, a folder or a request to compile, goes through `serai_gateway.build` in the same way.
"""
