"""Processes that count together, then a pool that computes."""

import os
import time

import multihost as multiprocessing


def count(name, lock, total, start, barrier):
    start.wait()
    for _ in range(20):
        with lock:
            total.value += 1
    barrier.wait(30)
    print(f"{name} ({os.getpid()}) is done", flush=True)


def square(n):
    time.sleep(0.01)
    return n * n


def show(result):
    print("sum of squares:", result)


def main():
    lock = multiprocessing.Lock()
    total = multiprocessing.Value("i", 0)
    start = multiprocessing.Event()
    barrier = multiprocessing.Barrier(3)
    processes = [
        multiprocessing.Process(target=count, args=(f"p{i}", lock, total, start, barrier))
        for i in range(3)
    ]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join()
    print("total:", total.value, "exit codes:", [process.exitcode for process in processes])

    with multiprocessing.Pool(4) as pool:
        print(pool.apply(square, (7,)))
        print(pool.map(square, range(10)))
        pending = pool.starmap_async(pow, [(n, 2) for n in range(5)])
        pool.apply_async(sum, (pending.get(30),), callback=show).wait(30)
        for value in pool.imap_unordered(square, range(3)):
            print("came:", value)
        pool.close()
        pool.join()


if __name__ == "__main__":
    multiprocessing.freeze_support()
    main()
