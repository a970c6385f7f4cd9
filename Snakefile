"""galgaze: from fields to catalogues. The stages are in workflow/rules, the work in src/galgaze."""

from snakemake.utils import min_version

min_version("9.0")

# A file given with --configfile stands alone: it is not laid over the default one.
if not workflow.config_settings.configfiles:

    configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/images.smk"
include: "workflow/rules/model.smk"
include: "workflow/rules/results.smk"
include: "workflow/rules/catalogue.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        get_reports(),
