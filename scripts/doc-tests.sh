#!/usr/bin/env bash
# Runs the examples in doc comments of those crates that have some: every crate without any costs its compilation all the same.
set -euo pipefail
cd "$(dirname "$0")/.."

# A block of a doc comment is an example unless it says that it is something else; an indented one always is.
has_examples() { # folder
  find "$1" -name '*.rs' -exec cat {} + | awk '
    !match($0, /^[[:space:]]*\/\/[\/!]/) { ends = 0; next }
    { rest = substr($0, RLENGTH + 1) }
    rest ~ /^ ?```/ {
      if (!block && rest !~ /^ ?```(text|console|toml|yaml|json|sh)[[:space:]]*$/) found = 1
      block = !block
    }
    !block && ends && rest ~ /^     +[^ ]/ { found = 1 }
    { ends = rest ~ /^[[:space:]]*$/ }
    END { exit !found }'
}

packages=()
while read -r manifest; do
  folder=$(dirname "$manifest")
  if [ -d "$folder/src" ] && has_examples "$folder/src"; then
    packages+=(-p "$(sed -n 's/^name = "\(.*\)"$/\1/p' "$manifest" | head -n 1)")
  fi
done < <(find . -name Cargo.toml -not -path './target/*' | sort)
if [ ${#packages[@]} -eq 0 ]; then
  echo "no crate has examples in its documentation"
else
  cargo test --locked --doc --quiet "${packages[@]}"
fi
