package main

import (
	"slices"
	"time"

	"github.com/entrepot/entrepot/e2e/bench/origin"
)

// workload is something that clients ask of a system, how upstream answers meanwhile, and what entrepot should make of it.
type workload struct {
	name string
	// what is a sentence; sizes in it are those of a full run.
	what string
	// systems are those it makes sense for.
	systems []string
	// columns are the metrics that the table shows.
	columns []metric
	goals   []goal
	// line is upstream's.
	line origin.Line
	// overRegistry has the real registry for an upstream.
	overRegistry bool
	// tagTTL is what the systems are told, their default if 0.
	tagTTL time.Duration
	// long workloads are measured longRounds times at most, and once by a quick run.
	long bool
	// run does the work on one system.
	run func(*trial) (values, error)
}

func (w workload) title() string { return w.name }

func (w workload) suits(y system) bool { return slices.Contains(w.systems, y.name) }

// perConnection is modest: what a content network gives one connection from far away.
const perConnection = 20_000_000

// The systems by what they can do. What is warm from the start can't be cold.
var (
	caches = []string{peerRegistry, peerNginx, mirror}
	warm   = append([]string{limitStatic, limitFloor}, caches...)
	cold   = append([]string{nobody}, caches...)
	every  = append([]string{mirrorSingle}, cold...)
	filled = append([]string{limitFill}, every...)
)

var workloads = slices.Concat(hot, images, first, parts, numbers, limits, starts, overRegistry)
