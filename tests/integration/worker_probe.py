"""What the tests of the worker ask the server and the system."""

import psutil


def newest_job(cluster, function):
    """The job that was submitted last for a function."""
    label = f"{function.__module__}.{function.__qualname__}"
    return next(job for job in cluster.get("/api/jobs") if job["label"] == label)


def task_of(cluster, function, index=0):
    """A task of that job, with its attempts and its output."""
    return cluster.get(f"/api/tasks/{newest_job(cluster, function)['job']}/{index}")


def faults_of(task):
    return task["errors"], task["crashes"], task["losses"]


def is_gone(pid):
    """Whether a process has ended, reaped or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
