"""The verbs, a module each: plan, fetch, shard, train, predict, measure, write, report, evaluate."""
