rule train:
    """Train a task's model on its labelled field."""
    input:
        get_training_images,
    output:
        LAYOUT.model("{task}").with_suffix(".json"),
    params:
        config=CONFIG,
        settings=get_training_settings,
    log:
        LAYOUT.log("train", "{task}"),
    threads: get_training_threads
    resources:
        mem_mb=8000,
    conda:
        "../../envs/galgaze.yaml"
    shell:
        "galgaze train --config {params.config} --task {wildcards.task} 2>&1 | tee {log}"
