// Command replay compares what goes first in a full cache: entrepot's policy, the very type that it uses, with others and with
// the least that has to be fetched, by the bytes that come from upstream. It pulls nothing: requests are drawn by chance, after
// published studies of registries, see mix and layerSize.
//
// It is a module of its own because it needs one of entrepot's packages.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sync/errgroup"
)

// shares of the working set, which is all that a trace asks for, that a cache has room for.
var shares = []float64{0.05, 0.1, 0.25, 0.5}

var policies = []struct {
	name string
	make func(trace) cache
}{
	{"LRU", newLRU},
	{"S3-FIFO", newS3FIFO},
	{"GDSF", newGDSF},
	{"entrepot", newProduct},
}

func main() {
	seed := flag.Uint64("seed", 0, "draw other traces: added to the seed of each")
	flag.Parse()
	for _, m := range mixes {
		m.seed += *seed
		if err := report(os.Stdout, m); err != nil {
			fmt.Fprintln(os.Stderr, "replay:", err)
			os.Exit(1)
		}
	}
}

func report(out io.Writer, m mix) error {
	t := generate(m)
	set := describe(out, m, t)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "from upstream: GB, and times the optimum\t")
	for _, share := range shares {
		fmt.Fprintf(w, "\t%.0f %%\t", 100*share)
	}
	fmt.Fprintln(w, "\tmanifests fetched at 10 %\t")
	least := row(func(c int64) *replay { return &replay{fetched: optimum(t, c)} }, set)
	line(w, "optimum", least, least)
	for _, p := range policies {
		line(w, p.name, row(func(c int64) *replay { return run(t, p.make(t), c, habit{}) }, set), least)
	}
	for _, h := range habits[1:] {
		line(w, "entrepot, "+h.name, row(func(c int64) *replay { return run(t, newProduct(t), c, h.make(t)) }, set), least)
	}
	return w.Flush()
}

// row runs one for each share of a working set, two at a time.
func row(one func(capacity int64) *replay, set int64) []*replay {
	all := make([]*replay, len(shares))
	var g errgroup.Group
	g.SetLimit(2)
	for i, share := range shares {
		g.Go(func() error {
			all[i] = one(int64(share * float64(set)))
			return nil
		})
	}
	_ = g.Wait() // none fails
	return all
}

func line(w io.Writer, name string, all, least []*replay) {
	fmt.Fprintf(w, "%s\t", name)
	for i, r := range all {
		fmt.Fprintf(w, "%.0f\t%.3f\t", float64(r.fetched)/1e9, float64(r.fetched)/float64(least[i].fetched))
	}
	if n := all[1].fetches; n > 0 {
		fmt.Fprintf(w, "%d", n)
	}
	fmt.Fprintln(w, "\t")
}

// describe tells what a trace comes to, and returns the bytes of its working set.
func describe(out io.Writer, m mix, t trace) (set int64) {
	uses, asked, small := make([]int, len(t.objects)), int64(0), int64(0)
	for _, r := range t.requests {
		uses[r.object]++
		asked += t.objects[r.object].size
	}
	distinct, once := 0, 0
	for o, n := range uses {
		if n == 0 {
			continue
		}
		distinct++
		if n == 1 {
			once++
		}
		set += t.objects[o].size
		if t.objects[o].size <= 64*kib {
			small += t.objects[o].size
		}
	}
	slices.SortFunc(uses, func(a, b int) int { return b - a })
	top := 0
	for _, n := range uses[:distinct/100] {
		top += n
	}
	percent := func(n, of int) int { return 100 * n / of }
	fmt.Fprintf(out, "\n%s: %s\n%d requests for %.0f GB, of %d objects of %.0f GB; %d %% of the objects are asked for once, "+
		"the most popular hundredth gets %d %% of the requests; what is below 64 KiB comes to %.2f %% of the bytes\n",
		strings.ToUpper(m.name), m.what,
		len(t.requests), float64(asked)/1e9, distinct, float64(set)/1e9, percent(once, distinct), percent(top, len(t.requests)),
		100*float64(small)/float64(set))
	return set
}
