# 医协枢纽 / Yixie Hub. `make run` starts the demo, `make test` runs everything that CI runs.
SHELL := /bin/bash
BIN := .venv/bin
STAMP := .venv/.installed
# Where the tests stop gaining from more processes on the two cores of the reference machine.
WORKERS ?= 4

.PHONY: run setup test fuzz lint bench lock docs check-v2-maps clean help
.DEFAULT_GOAL := help

help:  ## 列出目标 / list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-14s %s\n", $$1, $$2}'

run: setup  ## 安装并运行演示 / set up and run the demo; Ctrl-C stops it
	@exec $(BIN)/hub demo

setup: $(STAMP)  ## 只建立环境 / make the environment alone
	@scripts/system_tools storescu=dcmtk strace=strace
	@scripts/viewer $(BIN)/hub

# The stamp is the last thing written, so an interrupted install is done again.
$(STAMP): requirements.txt pyproject.toml scripts/make_venv
	scripts/make_venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

test: setup  ## 全部测试 / every test (ARGS="tests/hub -x" narrows it)
	@scripts/system_tools chromium=chromium /usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc=fonts-noto-cjk \
	  gdcmscu=libgdcm-tools dciodvfy=dicom3tools node=nodejs npm=npm /usr/sbin/sshd=openssh-server \
	  /usr/sbin/mariadbd=mariadb-server-core unzip=unzip
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(or $(ARGS),tests)

# atheris has wheels for few systems; where it does not install, the run itself says that no coverage guides it.
fuzz: setup  ## 模糊测试 HL7 v2 解析器 / fuzz the HL7 v2 parsers (TIME=60 seconds, ARGS="frames" names targets)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
	  -r tests/fuzz/requirements.txt || true
	$(BIN)/python -m tests.fuzz $(or $(TIME),60) $(ARGS)

lint: setup  ## 格式、规则、类型、依赖方向 / format, rules, types, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup  ## 性能测试 / benchmarks, beside Orthanc and MessageFoundry where they install
	@scripts/system_tools Orthanc=orthanc chromium=chromium
	@scripts/bench_peers
	$(BIN)/python -m benchmarks $(ARGS)

docs: setup  ## 重新生成文档中的表 / regenerate what docs/ takes from the code
	$(BIN)/python docs/scripts/operations.py
	$(BIN)/python docs/scripts/dicom_conformance.py
	PYTHONPATH=. $(BIN)/python docs/scripts/hl7v2_conformance.py
	$(BIN)/python docs/scripts/test_files.py
	$(BIN)/python -m hub.workflows.diagram docs/workflows

# MAPS is the folder `mappings` of a checkout of github.com/HL7/v2-to-fhir; ARGS=--write takes over what is new there.
check-v2-maps: setup  ## 与官方 v2-to-FHIR 映射逐行比对 / compare with the official v2-to-FHIR maps (MAPS=DIR)
	PYTHONPATH=. $(BIN)/python docs/scripts/v2_maps.py "$(MAPS)" $(ARGS)

# The lock names versions and hashes only: which index serves them is the installer's choice.
lock:  ## 重新锁定依赖 / lock the dependencies again (needs pip-tools in .venv)
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --extra dev --extra video --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
	  --output-file requirements.txt pyproject.toml

clean:  ## 删除可以重建的 / remove what can be made again
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
