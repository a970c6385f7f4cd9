"""The zoo of faults: each has its number, and tests whose names begin with it, done as a user would.

A configuration, a plan, `fetch` over HTTP from a server that misbehaves (`zoo.py`), and `shard` where only that shows
it; then statuses, reasons, the cache, the requests, the exit code. What a room does about a fault by itself is proven
beside that room, in the files on the right.

===== ================================================== ============================ =================================
fault what happens                                       here                         more in tests/
===== ================================================== ============================ =================================
1     200 and HTML, or words; an unknown layer           test_bodies_and_answers      surveys/test_legacy, test_first
2     a body shorter than its Content-Length             test_bodies_and_answers      surveys/test_http
3     a body shorter than its header says                test_bodies_and_answers      surveys/test_legacy, test_first
4     429, with every sort of Retry-After                test_bodies_and_answers      surveys/test_http, test_host_gate
5     503, reset, stalled                                test_bodies_and_answers      surveys/test_http, test_host_gate
6     outside of the survey                              test_bodies_and_answers      surveys/test_cache, test_footprint
7     blank in part: zeros, NaN, the edge of a map       test_coverage_and_position   images/test_preparation
8     other bands, or in another order                   test_bodies_and_answers,     surveys/test_legacy
                                                         test_configuration
9     a size that the service clamps                     test_bodies_and_answers,     surveys/test_legacy, test_first
                                                         test_configuration
10    bad positions; the edges of the sky                test_fields_and_ids          fields/test_rows
11    ids that are there twice, rounded, padded          test_fields_and_ids          fields/test_rows, test_tables
12    hostile ids                                        test_fields_and_ids          fields/test_rows
13    kill -9                                                                         stages/test_fetch_cli, workflow
14    a store with a chunk lost or damaged                                            images/test_store
15    no space, no permission                                                         stages/test_fetch_cli
16    a bad model file                                                                models/test_model_file
17    a poisoned image                                   test_hostile_bodies          stages/test_shard, test_predict
18    odd saliency maps                                                               measures/test_bars
19    workers killed, out of order                                                    stages/test_predict
20    resumed with changed inputs                                                     stages/test_fetch, test_plan
21    a configuration with mistakes                      test_configuration           test_config
22    nothing, one source, all failed                    test_fields_and_ids          stages/test_write, workflow
23    another device, another batch                                                   models, workflow/test_run
24    two runs in one folder                                                          stages/test_fetch_cli
25    a pickle with a payload                                                         images/test_datasets
26    a star on the pixel that its row names             test_coverage_and_position   images/test_preparation
===== ================================================== ============================ =================================
"""
