# A job a field and task; Dask works through the shards inside it. Finished parts are not done again.


rule predict:
    """Predict every source of a field."""
    input:
        images=get_images,
        model=get_model,
    output:
        LAYOUT.stage_marker("{field}", "{task}", "predict"),
    log:
        LAYOUT.log("predict", "{field}", "{task}"),
    conda:
        "../../envs/galgaze.yaml"
    threads: 64  # as many as there are
    resources:
        dask="local",
        dask_workers=get_dask_workers,
        mem_mb=8000,
    params:
        config=CONFIG,
        uncertainty=get_uncertainty_settings,
    shell:
        "galgaze predict --config {params.config} --field {wildcards.field} --task {wildcards.task}"
        " --workers {resources.dask_workers} --dask {resources.dask} 2>&1 | tee {log}"


rule measure:
    """Measure the bars of a field."""
    input:
        LAYOUT.stage_marker("{field}", "{task}", "predict"),
    output:
        LAYOUT.stage_marker("{field}", "{task}", "measure"),
    log:
        LAYOUT.log("measure", "{field}", "{task}"),
    conda:
        "../../envs/galgaze.yaml"
    threads: 64
    resources:
        dask="local",
        dask_workers=get_dask_workers,
        mem_mb=8000,
    params:
        config=CONFIG,
        settings=get_bar_settings,
    shell:
        "galgaze measure --config {params.config} --field {wildcards.field} --task {wildcards.task}"
        " --workers {resources.dask_workers} --dask {resources.dask} 2>&1 | tee {log}"
