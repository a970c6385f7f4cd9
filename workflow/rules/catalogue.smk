rule write:
    """Join what the stages found into the catalogue."""
    input:
        LAYOUT.stage_marker("{field}", "{task}", "predict"),
        get_measured,
    output:
        LAYOUT.catalogue("{field}", "{task}"),
    log:
        LAYOUT.log("write", "{field}", "{task}"),
    conda:
        "../../envs/galgaze.yaml"
    resources:
        mem_mb=4000,
    params:
        config=CONFIG,
    shell:
        "galgaze write --config {params.config} --field {wildcards.field} --task {wildcards.task} 2>&1 | tee {log}"


rule report:
    """Write the page of a field."""
    input:
        get_catalogues,
    output:
        LAYOUT.report("{field}"),
    log:
        LAYOUT.log("report", "{field}"),
    conda:
        "../../envs/galgaze.yaml"
    resources:
        mem_mb=4000,
    params:
        config=CONFIG,
    shell:
        "galgaze report --config {params.config} --field {wildcards.field} 2>&1 | tee {log}"
