"""Publish the algorithms that come with Serai, by the way that everybody's take."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from serai_gateway.build import BuildError, Publish, algorithm_of, publish_first_party
from serai_gateway.builder.builds import Build, Builds
from serai_gateway.builder.jobs import FolderJob, Workshop
from serai_gateway.builder.messages import Ended
from serai_gateway.catalogue import Account, Version


async def publish_all(shop: Workshop, builds: Builds, say: Callable[[str], None]) -> dict[str, str]:
    """ "owner/name" to why it could not be published; `say` is called from a thread."""
    loop = asyncio.get_running_loop()

    def publish(folder: Path, account: Account) -> Version:
        algorithm = algorithm_of(folder, shop.catalogue, account)
        job = FolderJob(algorithm, account, folder, Publish("revision"))
        ended = asyncio.run_coroutine_threadsafe(_build(builds, job, say), loop).result()
        if ended.made is None:
            raise BuildError(ended.message)
        return shop.catalogue.find_version(ended.made.owner, ended.made.name, ended.made.hash, account)

    report = await asyncio.to_thread(publish_first_party, shop.home, shop.catalogue, publish, say)
    return report.failed


async def _build(builds: Builds, job: FolderJob, say: Callable[[str], None]) -> Ended:
    end: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
    builds.submit(Build(job, say, end.set_result))
    return await end
