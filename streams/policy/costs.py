"""What a task will cost, in GPU-seconds: the decayed mean of what such tasks were measured to cost, or a prior.

Such tasks are those of one kind (pipeline/stage@version), pool and quality; of the same user where some of hers have
ended: whoever is charged the mean of others is served too much or too little by as many tasks as run at once. A second
mean over all pools and qualities serves where the pool is not chosen yet. A wrong estimate only moves when a user is
served: what was measured replaces it in the end.
"""

from functools import lru_cache
from sys import intern
from typing import Final

from schemas.pipelines import PIPELINES
from streams.policy.state import Habit, SchedulerState

STANDARD: Final = "standard"


@lru_cache(maxsize=4096)
def cost_key(kind: str, pool: str, quality: str) -> str:
    """Names what costs alike; one object for equal names, since every user has some."""
    return intern(f"{kind} {pool} {quality}")


def estimate(state: SchedulerState, kind: str, pool: str | None = None, quality: str = STANDARD) -> float:
    """GPU-seconds of a task; pool None: wherever it will run."""
    mean = state.costs.get(kind if pool is None else cost_key(kind, pool, quality))
    return prior(state, kind, quality) if mean is None else mean


def estimate_for(state: SchedulerState, user_id: str, kind: str, pool: str, quality: str) -> float:
    """GPU-seconds of a user's task: what such tasks of this user cost lately, else what such tasks cost."""
    habit = state.habits.get(user_id)
    mean = None if habit is None else habit.costs.get(cost_key(kind, pool, quality))
    return estimate(state, kind, pool, quality) if mean is None else mean


def learn_of(state: SchedulerState, user_id: str, kind: str, pool: str, quality: str, gpu_seconds: float) -> None:
    """A task of the user succeeded. The user moves to the end of those whose tasks ended long ago."""
    habit = state.habits.pop(user_id, None) or Habit()
    state.habits[user_id] = habit
    habit.seen_at = state.now
    key = cost_key(kind, pool, quality)
    mean = habit.costs.get(key)
    habit.costs[key] = gpu_seconds if mean is None else mean + state.policy.cost_decay * (gpu_seconds - mean)


def learn(state: SchedulerState, kind: str, pool: str, quality: str, gpu_seconds: float) -> None:
    """A task of that kind succeeded."""
    decay, costs = state.policy.cost_decay, state.costs
    for key, known in ((cost_key(kind, pool, quality), quality), (kind, STANDARD)):
        mean = costs.get(key)
        if mean is None:
            mean = prior(state, kind, known)
        costs[key] = mean + decay * (gpu_seconds - mean)


def prior(state: SchedulerState, kind: str, quality: str) -> float:
    """The policy's cost of the stage, else the pipeline's, times the quality's factor."""
    policy = state.policy
    stage = kind[: kind.rindex("@")]
    seconds = policy.costs.get(stage)
    if seconds is None:
        pipeline_id, _, name = stage.partition("/")
        pipeline = PIPELINES[pipeline_id]
        seconds = pipeline.stages[pipeline.stage_index(name)].prior_gpu_seconds
    return seconds * policy.quality_factor.get(quality, 1.0)


def rest_of_job(state: SchedulerState, kind: str, quality: str = STANDARD) -> float:
    """GPU-seconds of a task and of the stages after it, with the same model version."""
    stage, _, version = kind.rpartition("@")
    pipeline_id, _, name = stage.partition("/")
    pipeline = PIPELINES[pipeline_id]
    factor = state.policy.quality_factor.get(quality, 1.0)
    found = 0.0
    for spec in pipeline.stages[pipeline.stage_index(name) :]:
        found += estimate(state, f"{pipeline_id}/{spec.name}@{version}")
    return found * factor
