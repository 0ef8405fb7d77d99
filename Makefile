# `make` prints this menu.
.PHONY: menu setup check test test-long gen gen-check bench bpf demo fmt
menu: ## this menu
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 16
setup: ## install what is missing and build
	@scripts/setup
fmt: ## format Python and C
	@.venv/bin/ruff format . && .venv/bin/ruff check -q --fix . ; clang-format-19 -i bpf/*.c bpf/lib/*.h bpf/include/mycel/*.h
