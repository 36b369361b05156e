#!/bin/sh
# Packs GraphiQL's prebuilt files into vendor/, as the gateway serves them: compressed once, with their licences.
# Run it after a change of package.json or its lockfile; what comes out is the same wherever it is run.
set -eu
cd "$(dirname "$0")"
npm ci --ignore-scripts --no-audit --no-fund
mkdir -p vendor
pack() {
  # The source map is not served.
  sed '/^\/\/# sourceMappingURL=/d' "node_modules/$1" | gzip -9 -n > "vendor/$2.gz"
}
pack react/umd/react.production.min.js react.js
pack react-dom/umd/react-dom.production.min.js react-dom.js
pack graphiql/graphiql.min.js graphiql.js
pack graphiql/graphiql.min.css graphiql.css
# GraphiQL's build has these inside.
: > vendor/LICENSES
for package in $(ls -d node_modules/* node_modules/@*/* | sed 's|^node_modules/||' | grep -v '^@[^/]*$' | sort); do
  for file in LICENSE LICENSE.md LICENSE.txt license license.md; do
    if [ -f "node_modules/$package/$file" ]; then
      printf '==== %s ====\n\n' "$package" >> vendor/LICENSES
      cat "node_modules/$package/$file" >> vendor/LICENSES
      printf '\n\n' >> vendor/LICENSES
      break
    fi
  done
done
gzip -9 -n -f vendor/LICENSES
rm -rf node_modules
