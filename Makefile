# `make` prints this menu. Everything here also runs without make: see scripts/ and tools/.
.PHONY: menu setup check test test-long gen gen-check docs-check bench bpf demo fmt
py := .venv/bin/python

menu: ## this menu
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 16
setup: ## install what is missing, with the tools for development, and build
	@scripts/setup --dev
check: ## formats, lint, types, import layers, generated files, docs (no root, half a minute)
	@scripts/check
test: ## every check and every test (root)
	@scripts/test
test-long: ## the long variants (root, much longer)
	@scripts/test --long
gen: ## regenerate src/mycel/{abi,api}, deploy/chart/crds and docs/cli.md
	@$(py) tools/gen_abi.py && $(py) tools/gen_api.py && $(py) tools/gen_crds.py && $(py) tools/gen_cli_doc.py
gen-check: ## fail when generated files are stale
	@$(py) tools/gen_abi.py --check && $(py) tools/gen_api.py --check && $(py) tools/gen_crds.py --check
docs-check: ## fail when a verb, setting or drop reason is missing from docs/
	@$(py) tools/check_docs.py
bpf: ## build the kernel programs into build/bpf
	@$(py) tools/build_bpf.py
bench: ## the benchmarks (root; each row is a ratio of one run)
	@$(py) -m bench
demo: ## set up, create a cluster, install the mesh, show a curl and its flows
	@scripts/demo
fmt: ## format Python and C
	@.venv/bin/ruff format -q . && .venv/bin/ruff check -q --fix . ; \
	find bpf -name '*.c' -o -name '*.h' | xargs clang-format-19 -i
