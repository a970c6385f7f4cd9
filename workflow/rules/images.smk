# From the plan to images: a job a shard. What must survive a kill (the cache of downloads, the Zarr stores) is not
# declared as output; the jobs declare markers, written last, that hold the hashes of what was written.


rule fetch:
    """Fetch the cutouts of one shard."""
    input:
        LAYOUT.plan_shard("{field}", "{shard}"),
    output:
        LAYOUT.fetch_marker("{field}", "{survey}", "{shard}"),
    log:
        LAYOUT.log("fetch", "{field}", "{survey}", "{shard}"),
    retries: 2
    conda:
        "../../envs/galgaze.yaml"
    resources:
        downloads=get_downloads,
        mem_mb=1000,
    params:
        config=CONFIG,
        identity=get_survey_identity,
    shell:
        "galgaze fetch --config {params.config} --field {wildcards.field} --survey {wildcards.survey}"
        " --shard {wildcards.shard} 2>&1 | tee {log}"


rule shard:
    """Prepare the images of one shard and write them into the field's Zarr store."""
    input:
        plan=LAYOUT.plan_shard("{field}", "{shard}"),
        cutouts=get_fetch_marker,
    output:
        LAYOUT.store_marker("{field}", "{store}", "{shard}"),
    log:
        LAYOUT.log("shard", "{field}", "{store}", "{shard}"),
    conda:
        "../../envs/galgaze.yaml"
    resources:
        mem_mb=2000,
    params:
        config=CONFIG,
        task=get_store_task,
        survey=get_store_survey,
    shell:
        "galgaze shard --config {params.config} --field {wildcards.field} --task {params.task}"
        " --survey {params.survey} --shard {wildcards.shard} 2>&1 | tee {log}"
