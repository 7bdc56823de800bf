"""One push: what git's hook asks is checked, built, and taken or refused, while the author reads along."""

import asyncio

from serai_gateway.api.git.hook import Hook
from serai_gateway.api.git.refs import Plan, Update, parse_updates, plan
from serai_gateway.builder.client import BuilderClient
from serai_gateway.builder.messages import Ended
from serai_gateway.catalogue import Account, Algorithm
from serai_gateway.git import NO_COMMIT, GitError, PushRefused, Repository
from serai_gateway.git.command import run_git
from serai_gateway.git.limits import LIMITS
from serai_gateway.git.threads import in_git_thread
from serai_gateway.logs import get_logger

_log = get_logger("gateway")

#: Prints `rewinds ref` for each branch that would lose commits, `odd ref` for each that leads to something else than a
#: commit, `large size path-or-hash` for each file that is too large, and at last `objects` and how many are new.
#: Arguments: largest file, then old, new and ref of each update.
_LOOK = """\
most=$1; shift; news=
while [ $# -gt 0 ]; do
  case $2 in *[!0]*)
    news="$news $2"
    case $1 in *[!0]*) git merge-base --is-ancestor "$1" "$2" || echo "rewinds $3" ;; esac
    case $3 in refs/heads/*) [ "$(git cat-file -t "$2")" = commit ] || echo "odd $3" ;; esac
  esac
  shift 3
done
[ -z "$news" ] || git rev-list --objects $news --not --all |
  git cat-file --batch-check='%(objecttype) %(objectsize) %(rest)' |
  awk -v most="$most" '$1 == "blob" && $2 > most { print "large", substr($0, 6) } END { print "objects", NR }'
"""


class Push:
    """The conversation with the hook of one push, and the turn of its algorithm until git has ended."""

    def __init__(
        self, repository: Repository, algorithm: Algorithm, account: Account, builder: BuilderClient, hook: Hook
    ) -> None:
        self._repository = repository
        self._algorithm = algorithm
        self._account = account
        self._builder = builder
        self._hook = hook
        self._git_has_ended = asyncio.Event()
        self.has_answered = False  # so that nothing is left to do but to give the turn back

    def git_has_ended(self) -> None:
        """The branch has moved, or never will: the next build of this algorithm may begin."""
        self._git_has_ended.set()

    async def run(self) -> None:
        """Returns after `git_has_ended`. To be cancelled when git ends, or its client goes, before there is an answer:
        then a build is called off."""
        quarantine, lines = await self._hook.asked()
        try:
            plan = await in_git_thread(self._check, quarantine, lines)
            if plan.built is None:
                await self._take()
            else:
                await self._build(plan, plan.built, quarantine)
        except GitError as error:
            await self._refuse(f"\n{error}\n")
        except Exception:
            _log.exception("a push failed by our fault", action="push", algorithm=self._algorithm.id)
            await self._refuse("\ninternal error; the operator finds it in the gateway's log\n")
        await self._git_has_ended.wait()

    async def _take(self) -> None:
        await self._hook.take()
        self.has_answered = True

    async def _refuse(self, why: str) -> None:
        await self._hook.say(why)
        await self._hook.refuse()
        self.has_answered = True

    def _check(self, quarantine: str, lines: list[str]) -> Plan:
        """Raises PushRefused."""
        repository = self._repository
        updates = parse_updates(lines)
        decided = plan(updates, repository.head(), repository.refs())
        words = [word for update in updates for word in (update.old, update.new, update.ref)]
        output = run_git(
            repository.home, repository.path, _LOOK, str(LIMITS.blob_bytes), *words, quarantine=quarantine, script=True
        ).decode("utf-8", "replace")
        for line in output.splitlines():
            what, _, rest = line.partition(" ")
            if what == "rewinds":
                raise PushRefused(f"{rest}: this would lose commits: fetch, merge, and push again (force is not taken)")
            if what == "odd":
                raise PushRefused(f"{rest}: a branch leads to a commit, and this is something else")
            if what == "large":
                size, _, path = rest.partition(" ")
                most = LIMITS.blob_bytes >> 20
                raise PushRefused(
                    f"{path or 'a file'}: {int(size) >> 20} MiB, over the limit of {most} MiB for a file, in this or "
                    "an earlier commit; large models come from a package by `wheel = …` in algorithm.toml"
                )
            if what == "objects" and int(rest) > LIMITS.num_objects:
                raise PushRefused(f"{int(rest):,} new objects in one push; at most {LIMITS.num_objects:,}")
        if (size := repository.size_bytes()) > LIMITS.repository_bytes:
            most = LIMITS.repository_bytes >> 20
            raise PushRefused(f"the repository would hold {size >> 20} MiB, over the limit of {most} MiB")
        return decided

    async def _build(self, plan: Plan, update: Update, quarantine: str) -> None:
        expected = "" if update.old == NO_COMMIT else update.old
        named = f"algo://{self._algorithm.owner}/{self._algorithm.name}"
        async with self._builder.push(self._algorithm, self._account, update.new, expected, quarantine) as events:
            async for event in events:
                if not isinstance(event, Ended):
                    await self._hook.say(event.text)
                elif event.outcome != "built":
                    await self._refuse(f"\nBuild failed for {named}/{update.new}\n{event.message}\n")
                else:
                    if not expected:  # a first push says which branch is the default
                        await in_git_thread(self._repository.set_branch, plan.branch)
                    name = f"{self._algorithm.owner}/{self._algorithm.name}"
                    await self._hook.say(f"\nBuild successful for {named}/{update.new}")
                    await self._hook.say(
                        f"To give it a number: serai publish {name}, or POST /v1/algorithms/{name}/versions\n"
                    )
                    await self._take()
            await self._git_has_ended.wait()
