# Every target sets up what it needs; `make help` lists them.
VENV ?= .venv
RUNS ?= runs
MODEL ?= $(RUNS)/stage3_mpm
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# RUN= of make browse is a run folder; in here RUN is the program.
LOOKED_AT := $(RUN)
override RUN := $(BIN)/python -m pipeline

# A word for the shell, whatever blanks and quotes are in it; the last part of MODEL.
q = '$(subst ','\'',$(1))'
base = $(shell basename -- $(call q,$(MODEL)))

# Names of configurations (a stage's own, or a path); later ones overlay.
config = $(foreach c,$(or $(CONFIG),$(1)),-c $c)
folder = --trainer.default_root_dir=$(call q,$(RUNS)/$(or $(NAME),$(1)))
data = --data.init_args.imagenet=$(call q,$(IMAGENET)) --data.init_args.pinpp=$(call q,$(PINPP))
# of an evaluation: its folder; without parts ImageNet is enough
evaluated = $(RUNS)/evaluate/$(or $(NAME),$(base))
measured = --data.init_args.imagenet=$(call q,$(IMAGENET)) \
  $(if $(PINPP),--data.init_args.pinpp=$(call q,$(PINPP))) \
  $(if $(LIST),--data.init_args.list_file=$(call q,$(LIST)))
generalise = $(RUN) generalisation test $(call config,imagenet) $(measured) \
  --model.init_args.model=$(call q,$(MODEL)) \
  $(if $(PINPP_VAL),--data.init_args.sources.background.init_args.annotations=$(call q,$(PINPP_VAL))) \
  --trainer.default_root_dir=$(call q,$(evaluated)/generalisation)
need = $(foreach v,$(1),$(if $($(v)),,$(error set $(v)=, see make help)))

.NOTPARALLEL:
.PHONY: help setup demo demo-photographs test lint check-data sort-val data-statistics import-parts stage1-segmenter \
  stage2-pseudolabels label-report score-segmenter export-labels import-labels stage3-mpm export-model evaluate \
  generalisation compare few-shot human-alignment \
  downstream-detection report deploy browse tiny-imagenet resize-images estimate study gpu-check clean

help:
	@echo "make setup                set up VENV= (.venv), as targets that need it do themselves"
	@echo "make demo                 the whole pipeline on rendered images, 7 to 10 minutes"
	@echo "make demo-photographs     the same on DATA=, photographs with parts, from real weights"
	@echo "make test                 the tests in JOBS=2 processes (ARGS='-m slow' for the slow ones)"
	@echo "make lint                 ruff and mypy"
	@echo
	@echo "make check-data           every problem in images and annotations (DECODE=1 decodes all images)"
	@echo "make sort-val             ImageNet's val into class folders, DEVKIT= or LIST="
	@echo "make data-statistics      counts and density beside the paper -> RUNS/data_statistics"
	@echo "make import-parts         FORMAT=pascal_part, panoptic_parts or part_imagenet, SOURCE= -> OUT="
	@echo
	@echo "make stage1-segmenter     train the part segmenter      -> RUNS/stage1_segmenter"
	@echo "make stage2-pseudolabels  label all training images     -> RUNS/stage2_pseudolabels"
	@echo "make label-report         pseudo labels against people  -> RUNS/label_report/index.html"
	@echo "make score-segmenter      any segmenter's RESULTS= on PINPP_VAL= -> RUNS/segmenter_scores"
	@echo "make export-labels        FORMAT=coco or png              -> OUT="
	@echo "make import-labels        labels made elsewhere, SOURCE=  -> RUNS/stage2_pseudolabels"
	@echo "make stage3-mpm           train the recogniser          -> RUNS/stage3_mpm"
	@echo "make export-model         timm, ONNX, torch.export      -> OUT= or RUNS/export/MODEL"
	@echo "make evaluate             attacks, then generalisation  -> RUNS/evaluate/MODEL"
	@echo "make generalisation       corruptions, shifts, biases   -> RUNS/evaluate/MODEL/generalisation"
	@echo "make compare              two evaluations side by side, A= B="
	@echo "make few-shot             5-way, 1 and 5 shots, on frozen features -> RUNS/few_shot/MODEL"
	@echo "make human-alignment      beside people's decisions, HUMANS= -> RUNS/human_alignment"
	@echo "make downstream-detection Faster R-CNN on COCO= from MODEL= -> RUNS/downstream_detection"
	@echo "make report               one HTML page                 -> RUNS/report/index.html"
	@echo "make deploy               which model to choose, timed here  -> RUNS/deploy/index.html"
	@echo "make browse               look through the images of RUN= -> RUNS/browse/MODEL/index.html"
	@echo "make tiny-imagenet        T-PIN++ from ImageNet, PINPP and TINY= -> RUNS/t_pinpp"
	@echo "make resize-images        smaller training images       -> RUNS/resized (faster loading)"
	@echo "make estimate             hours and days of a stage 3 config (DEVICES=8)"
	@echo "make study                rows of tables 2, 5 and 6 over several seeds -> RUNS/study"
	@echo "make gpu-check            before renting eight GPUs: 5 minutes on one (ARGS=--markdown)"
	@echo "make clean                remove caches and the virtual environment, never RUNS"
	@echo
	@echo "IMAGENET=  folder with train/ and val/     PINPP=  folder with json/ and including/"
	@echo "PINPP_VAL= annotations of val images       RUNS=   where outputs go (runs)"
	@echo "CONFIG=    NAME of configs/STAGE/NAME.yaml or a path; all have small; 'small sv1' overlays"
	@echo "DEVKIT=    ILSVRC2012_devkit_t12 (folder or archive)   LIST= lines 'file class', of make sort-val"
	@echo "LIST=      of an evaluation: lines 'path label', or robustbench5000, authors_aa, authors1w"
	@echo "SPLIT=     split file of PINPP            TRUTH=  annotations for label-report"
	@echo "RESULTS=   COCO results of a segmenter   IMAGES= COCO file that numbers their images and parts"
	@echo "RUN=       of make browse: run folder of an evaluation or of stage 3; IMAGES= number, THREAT= name"
	@echo "UNFILTERED= run folder of labels made without the category filter, for label-report"
	@echo "DATA=      a folder with imagenet/ and pinpp/; of make study also part_shapes"
	@echo "OBJECTS=   of make import-parts: crop or largest   GROUPING= coarse parts: sitawarin or a file"
	@echo "COCO=      folder with train2017/, val2017/, annotations/; MODEL= (empty) starts at random"
	@echo "CLASSES=   of make few-shot: list of class folders to keep to, one a line"
	@echo "SUBSET=    of make evaluate: pin11, pin125 or a name in the JSON file SUBSETS="
	@echo "NAME=      run folder below RUNS, of an evaluation below RUNS/evaluate (MODEL's name)"
	@echo "MODEL=     run folder, timm folder, file, timm name"
	@echo "ARGS=      overrides, such as ARGS='--trainer.max_epochs=2'"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@python=; for p in python3 python3.11 python3.12 python3.13; do \
	  if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	  then python=$$p; break; fi; done; \
	if [ -z "$$python" ]; then echo "error: Python 3.11 or newer is needed" >&2; exit 1; fi; \
	echo "Setting up $(VENV) (once, some minutes)"; $$python -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)
	$(RUN) demo --runs $(call q,$(RUNS)/demo) $(ARGS)

demo-photographs: $(READY)
	$(call need,DATA)
	$(RUN) demo --runs $(call q,$(RUNS)/demo_photographs) --data $(call q,$(DATA)) $(ARGS)

# Processes of one thread each; a file's tests share what they set up, so they stay together.
test: $(READY)
	$(BIN)/python -m pytest -n $(or $(JOBS),2) --dist loadfile $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check-data: $(READY)
	$(call need,IMAGENET PINPP)
	$(RUN) check_data --imagenet $(call q,$(IMAGENET)) --pinpp $(call q,$(PINPP)) \
	  $(if $(PINPP_VAL),--pinpp_val $(call q,$(PINPP_VAL))) $(if $(DECODE),--decode=true) $(ARGS)

sort-val: $(READY)
	$(call need,IMAGENET)
	$(RUN) sort_val --imagenet $(call q,$(IMAGENET)) \
	  $(if $(DEVKIT),--devkit $(call q,$(DEVKIT))) $(if $(LIST),--list $(call q,$(LIST))) $(ARGS)

data-statistics: $(READY)
	$(call need,IMAGENET PINPP)
	$(RUN) data_statistics --imagenet $(call q,$(IMAGENET)) --pinpp $(call q,$(PINPP)) \
	  --out $(call q,$(RUNS)/$(or $(NAME),data_statistics)) $(ARGS)

# IMAGENET is of the third format alone; it may be set for other targets.
import-parts: $(READY)
	$(call need,FORMAT SOURCE OUT)
	$(RUN) import_parts $(call q,$(FORMAT)) --source $(call q,$(SOURCE)) --out $(call q,$(OUT)) \
	  $(if $(OBJECTS),--objects $(call q,$(OBJECTS))) $(if $(GROUPING),--grouping $(call q,$(GROUPING))) \
	  $(if $(filter part_imagenet,$(FORMAT)),$(if $(IMAGENET),--imagenet $(call q,$(IMAGENET)))) $(ARGS)

stage1-segmenter: $(READY)
	$(call need,IMAGENET PINPP)
	$(RUN) stage1_segmenter fit $(call config,pinpp_swin_b) $(data) \
	  $(if $(PINPP_VAL),--data.init_args.pinpp_val=$(call q,$(PINPP_VAL))) \
	  $(call folder,stage1_segmenter) $(ARGS)

stage2-pseudolabels: $(READY)
	$(call need,IMAGENET PINPP)
	$(RUN) stage2_pseudolabels predict $(call config,pinpp_swin_b) $(data) \
	  --model.init_args.segmenter=$(call q,$(RUNS)/stage1_segmenter) $(call folder,stage2_pseudolabels) $(ARGS)

label-report: $(READY)
	$(call need,IMAGENET PINPP)
	$(RUN) label_report --labels $(call q,$(RUNS)/stage2_pseudolabels) \
	  --imagenet $(call q,$(IMAGENET)) --pinpp $(call q,$(PINPP)) $(if $(SPLIT),--split $(call q,$(SPLIT))) \
	  $(if $(TRUTH),--truth $(call q,$(TRUTH))) $(if $(UNFILTERED),--unfiltered $(call q,$(RUNS)/$(UNFILTERED))) \
	  --out $(call q,$(RUNS)/label_report) $(ARGS)

score-segmenter: $(READY)
	$(call need,RESULTS IMAGENET)
	$(RUN) score_segmenter --results $(call q,$(RESULTS)) --imagenet $(call q,$(IMAGENET)) \
	  $(if $(PINPP),--pinpp $(call q,$(PINPP))) $(if $(PINPP_VAL),--truth $(call q,$(PINPP_VAL))) \
	  $(if $(SPLIT),--split $(call q,$(SPLIT))) $(if $(IMAGES),--images $(call q,$(IMAGES))) \
	  --out $(call q,$(RUNS)/segmenter_scores/$(or $(NAME),$(shell basename -s .json -- $(call q,$(RESULTS))))) \
	  $(ARGS)

export-labels: $(READY)
	$(call need,OUT)
	$(RUN) export_labels --labels $(call q,$(RUNS)/$(or $(NAME),stage2_pseudolabels)) \
	  --format $(or $(FORMAT),coco) --out $(call q,$(OUT)) $(if $(IMAGENET),--imagenet $(call q,$(IMAGENET))) \
	  $(if $(PINPP),--pinpp $(call q,$(PINPP))) $(ARGS)

import-labels: $(READY)
	$(call need,IMAGENET PINPP SOURCE)
	$(RUN) import_labels --format $(or $(FORMAT),coco) --source $(call q,$(SOURCE)) \
	  --out $(call q,$(RUNS)/$(or $(NAME),stage2_pseudolabels)) --imagenet $(call q,$(IMAGENET)) --pinpp $(call q,$(PINPP)) \
	  $(if $(IMAGES),--images $(call q,$(IMAGES))) $(ARGS)

stage3-mpm: $(READY)
	$(call need,IMAGENET PINPP)
	$(RUN) stage3_mpm fit $(call config,resnet50_gelu_at) $(data) \
	  --data.init_args.labels=$(call q,$(RUNS)/stage2_pseudolabels) $(call folder,stage3_mpm) $(ARGS)

export-model: $(READY)
	$(RUN) export_model --model $(call q,$(MODEL)) \
	  --out $(call q,$(or $(OUT),$(RUNS)/export/$(base))) $(ARGS)

# Attacks first, then everything that is measured without one, where there is a configuration.
# Within a subset of the classes there are attacks alone, of imagenet those of tables S2 and S3.
# Certified accuracy lies beside them in a folder of its own, as its records are other ones.
SUBSET ?= $(filter pin11 pin125,$(CONFIG))
evaluate: $(READY)
	$(call need,IMAGENET)
	$(RUN) evaluate test $(call config,imagenet $(filter pin11 pin125,$(SUBSET))) $(measured) \
	  --model.init_args.model=$(call q,$(MODEL)) $(if $(SUBSET),--data.init_args.subset=$(call q,$(SUBSET))) \
	  $(if $(SUBSETS),--data.init_args.subsets=$(call q,$(SUBSETS))) \
	  $(if $(PINPP_VAL),--data.init_args.part_annotations=$(call q,$(PINPP_VAL))) \
	  --trainer.default_root_dir=$(call q,$(evaluated)$(SUBSET:%=/subsets/%)$(if $(filter smoothing,$(CONFIG)),/certified)) $(ARGS)
	$(if $(SUBSET),,$(if $(wildcard configs/generalisation/$(or $(CONFIG),imagenet).yaml),$(generalise)))

generalisation: $(READY)
	$(call need,IMAGENET)
	$(generalise) $(ARGS)

compare: $(READY)
	$(call need,A B)
	$(RUN) compare --a $(call q,$(A)) --b $(call q,$(B)) $(ARGS)

few-shot: $(READY)
	$(call need,IMAGENET)
	$(RUN) few_shot --model $(call q,$(MODEL)) --imagenet $(call q,$(IMAGENET)) \
	  $(if $(PINPP),--pinpp $(call q,$(PINPP))) $(if $(PINPP_VAL),--pinpp_val $(call q,$(PINPP_VAL))) \
	  $(if $(CLASSES),--classes $(call q,$(CLASSES))) \
	  --out $(call q,$(RUNS)/few_shot/$(or $(NAME),$(base))) $(ARGS)

human-alignment: $(READY)
	$(call need,HUMANS)
	$(RUN) human_alignment --humans $(call q,$(HUMANS)) \
	  --model $(call q,$(evaluated)) --out $(call q,$(RUNS)/human_alignment) $(ARGS)

downstream-detection: $(READY)
	$(call need,COCO)
	$(RUN) downstream_detection fit $(call config,coco) \
	  --data.init_args.coco=$(call q,$(COCO)) $(if $(MODEL),--model.init_args.backbone=$(call q,$(MODEL))) \
	  $(call folder,downstream_detection) $(ARGS)
	$(RUN) downstream_detection test $(call config,coco) \
	  --data.init_args.coco=$(call q,$(COCO)) \
	  --model.init_args.weights=$(call q,$(RUNS)/$(or $(NAME),downstream_detection)) \
	  --trainer.default_root_dir=$(call q,$(RUNS)/$(or $(NAME),downstream_detection)/test) $(ARGS)

report: $(READY)
	$(RUN) report --runs $(call q,$(RUNS)) $(if $(IMAGENET),--imagenet $(call q,$(IMAGENET))) \
	  $(if $(PINPP),--pinpp $(call q,$(PINPP))) $(if $(PINPP_VAL),--pinpp_val $(call q,$(PINPP_VAL))) \
	  $(if $(filter command line,$(origin MODEL)),--models+ $(call q,$(MODEL))) $(ARGS)

deploy: $(READY)
	$(RUN) deploy --runs $(call q,$(RUNS)) \
	  $(if $(filter command line,$(origin MODEL)),--models+ $(call q,$(MODEL))) $(ARGS)

browse: $(READY)
	$(if $(LOOKED_AT),,$(error set RUN= to a run folder, see make help))
	$(RUN) browse --run $(call q,$(LOOKED_AT)) $(if $(IMAGES),--images $(call q,$(IMAGES))) \
	  $(if $(THREAT),--threat $(call q,$(THREAT))) $(if $(IMAGENET),--imagenet $(call q,$(IMAGENET))) \
	  $(if $(PINPP),--pinpp $(call q,$(PINPP))) $(if $(PINPP_VAL),--pinpp_val $(call q,$(PINPP_VAL))) \
	  $(if $(OUT),--out $(call q,$(OUT))) $(ARGS)

resize-images: $(READY)
	$(call need,IMAGENET)
	$(RUN) resize_images --imagenet $(call q,$(IMAGENET)) \
	  --out $(call q,$(RUNS)/$(or $(NAME),resized)) $(ARGS)

tiny-imagenet: $(READY)
	$(call need,IMAGENET PINPP TINY)
	$(RUN) tiny_imagenet --imagenet $(call q,$(IMAGENET)) --pinpp $(call q,$(PINPP)) --tiny $(call q,$(TINY)) \
	  --out $(call q,$(RUNS)/$(or $(NAME),t_pinpp)) $(ARGS)

estimate: $(READY)
	$(call need,IMAGENET PINPP)
	$(RUN) estimate $(if $(DEVICES),--devices $(DEVICES)) \
	  stage3_mpm fit $(call config,resnet50_gelu_at) $(data) \
	  --data.init_args.labels=$(call q,$(RUNS)/stage2_pseudolabels) $(ARGS)

study: $(READY)
	$(RUN) study --data $(call q,$(or $(DATA),part_shapes)) --out $(call q,$(RUNS)/study) \
	  --write_docs=true $(ARGS)

gpu-check: $(READY)
	$(BIN)/python -m benchmarks.gpu_check $(ARGS)

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
