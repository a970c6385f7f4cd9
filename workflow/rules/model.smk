rule train:
    """Train a task's model on its labelled field."""
    input:
        get_training_images,
    output:
        LAYOUT.model("{task}").with_suffix(".json"),
    log:
        LAYOUT.log("train", "{task}"),
    conda:
        "../../envs/galgaze.yaml"
    threads: get_training_threads
    resources:
        mem_mb=8000,
    params:
        config=CONFIG,
        settings=get_training_settings,
    shell:
        "galgaze train --config {params.config} --task {wildcards.task} 2>&1 | tee {log}"
