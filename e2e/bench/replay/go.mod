module github.com/entrepot/entrepot/e2e/bench/replay

go 1.26.0

replace github.com/entrepot/entrepot => ../../..

require (
	github.com/entrepot/entrepot v0.0.0-00010101000000-000000000000
	github.com/opencontainers/go-digest v1.0.0
	golang.org/x/sync v0.24.0
)
