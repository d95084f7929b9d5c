package upstream

import (
	"net/http"
	"testing"
)

// World is the network of these tests, for those that have a whole mirror in it.
type World = world

// NewWorld returns a world with nobody in it.
func NewWorld(t *testing.T) *World { return newWorld(t) }

// Serve puts a host into the world.
func (w *world) Serve(base string, h http.HandlerFunc) { w.serve(base, h) }

// Registry returns a registry in this world.
func (w *world) Registry(o Options, endpoints ...string) *Registry {
	return w.registry(o, endpoints...)
}
