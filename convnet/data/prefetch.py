"""Reads the next batch while this one trains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from convnet.data.batches import Batch
from convnet.data.provider import Provider


class Prefetcher:
    """The batches of these numbers, in this order, one being read ahead in a thread.

        with Prefetcher(provider, numbers) as batches:
            for batch in batches:

    Where the provider has 0 threads, nothing is read ahead. What `provider.read` raises is raised where its batch was due, after those before it; nothing
    is read beyond it. Leaving the `with` waits for the read under way, and the thread is gone.
    """

    def __init__(self, provider: Provider, numbers: Iterable[int]):
        self._provider = provider
        self._numbers = iter(numbers)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        self._ahead: Future[Batch] | None = None
        if provider.threads:
            self._read_ahead()

    def _read_ahead(self) -> None:
        number = next(self._numbers, None)
        self._ahead = None if number is None else self._thread.submit(self._provider.read, number)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if not self._provider.threads:
            return self._provider.read(next(self._numbers))
        if self._ahead is None:
            self.close()
            raise StopIteration
        try:
            batch = self._ahead.result()
        except Exception:
            self.close()
            raise
        self._read_ahead()
        return batch

    def close(self) -> None:
        self._ahead = None
        self._thread.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
