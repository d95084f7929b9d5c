// Command bench measures what entrepot does to pulls, side by side with its peers, in one run on one machine.
//
// Upstream is a registry of the benchmark's own (package origin), which counts what it is asked and sends, computes its
// content, and can be slow; the last two workloads have the real one, behind a road that counts and caps. Every measurement
// starts its system on an empty store in memory. The systems take turns round by round, and each follows each other one, so
// that a machine that is slower for a while is so for all of them; what is told is the median of the rounds.
//
// The clients (package load) are cheap, for they share the machine with what is measured: raw requests on connections of
// their own, bodies read into one buffer. Where whole images or blobs are pulled every byte is compared with what is right,
// which costs a tenth of a digest; where the same answer is asked for again and again, that is done once before, and lengths
// are checked after. A wrong answer is a failure, not a fast one, and each is told.
//
// A system's processor time is user and system time of all its processes, taken over the measured work alone, with what it
// does until it is at rest after the clients have left. Its peak memory is what its processes have resident, added up. What
// clients and upstream take of the machine slows all systems alike, and so seconds are for comparison only.
//
// static (nginx with the same content in files) and floor (the least that Go's net/http allows) are what a warm cache could
// be, and floor-fill (the least program that reads from upstream, hashes, writes a file and sends from it) what a cold one could;
// direct is no system at all. Each workload states goals for entrepot, relative to others in the same run where the
// machine matters.
//
// It needs Linux and Go: no root, no container engine, no internet but for Go modules. Peers that are not installed are left
// out. All of it takes some twenty minutes, go run ./bench -quick some two.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// rounds give a median that odd rounds do not move; quickRounds are the fewest of which that is true.
// Workloads that take long have no more in a full run either.
const rounds, quickRounds, longRounds = 5, 3, 3

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	cancel()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the command line's.
type options struct {
	rounds    int
	quick     bool
	workloads []workload
	systems   []system
	// named is whether the systems were asked for by name: then one that can't run is an error.
	named bool
	json  string
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.BoolVar(&o.quick, "quick", false, "smaller content, fewer rounds and fewer systems: goals are for the full sizes")
	workloadNames := flags.String("workload", "", "workloads to run, with commas between them: "+list(workloads)+" (default all)")
	systemNames := flags.String("system", "", "systems to measure, with commas between them: "+list(systems)+" (default all)")
	flags.IntVar(&o.rounds, "rounds", 0,
		fmt.Sprintf("measurements of each system and workload (default %d, quick %d)", rounds, quickRounds))
	flags.StringVar(&o.json, "json", "", "write all measurements to this `file` too")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("%q: there are no arguments, only flags", flags.Arg(0))
	}
	switch {
	case o.rounds < 0:
		return o, fmt.Errorf("-rounds %d: allowed: 1 and more", o.rounds)
	case o.rounds == 0 && o.quick:
		o.rounds = quickRounds
	case o.rounds == 0:
		o.rounds = rounds
	}
	var err error
	if o.workloads, err = pick(workloads, *workloadNames); err != nil {
		return o, fmt.Errorf("-workload: %w", err)
	}
	if o.systems, err = pick(systems, *systemNames); err != nil {
		return o, fmt.Errorf("-system: %w", err)
	}
	if o.named = *systemNames != ""; o.quick && !o.named {
		o.systems = slices.DeleteFunc(slices.Clone(o.systems), func(y system) bool { return y.thorough })
	}
	return o, nil
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "building what is measured …")
	s, err := newScene(ctx, o.quick)
	if s != nil {
		defer func() { err = errors.Join(err, s.close()) }()
	}
	if err != nil {
		return err
	}
	if o.systems, err = able(ctx, s, o); err != nil {
		return err
	}
	r := report{Machine: thisMachine(), Command: strings.Join(append([]string{"go run ./bench"}, args...), " "), Storage: s.storage}
	if err := r.header(out); err != nil {
		return err
	}
	for _, w := range o.workloads {
		t, err := measure(ctx, s, w, o)
		if err != nil {
			return err
		}
		if len(t.Rows) == 0 {
			continue
		}
		r.Tables = append(r.Tables, t)
		if err := t.print(out); err != nil {
			return err
		}
	}
	if err := r.summary(out); err != nil {
		return err
	}
	return errors.Join(r.failures(), r.write(o.json))
}

// able leaves out the systems that can't run here, and says so.
func able(ctx context.Context, s *scene, o options) ([]system, error) {
	var some []system
	for _, y := range o.systems {
		var err error
		if y.able != nil {
			err = y.able(ctx, s)
		}
		switch {
		case err == nil:
			some = append(some, y)
		case o.named || ctx.Err() != nil:
			return nil, fmt.Errorf("%s: %w", y.name, err)
		default:
			fmt.Fprintf(os.Stderr, "%s is left out: %v\n", y.name, err)
		}
	}
	return some, nil
}

// measure runs one workload on all systems that it suits, in rounds.
func measure(ctx context.Context, s *scene, w workload, o options) (table, error) {
	t := table{Workload: w.name, About: w.what, Columns: w.columns}
	var some []system
	for _, y := range o.systems {
		if w.suits(y) {
			some = append(some, y)
			t.Rows = append(t.Rows, row{System: y.name})
		}
	}
	n := o.rounds
	switch {
	case w.long && o.quick:
		n = 1
	case w.long:
		n = min(n, longRounds)
	}
	for round := range n {
		for turn := range some {
			// Who comes first changes by the round: each system follows each other one.
			i := (round + turn) % len(some)
			v, err := s.measure(ctx, w, some[i])
			if ctx.Err() != nil {
				return t, err
			}
			told := fmt.Sprintf("%s %s", w.columns[0], spell(v[w.columns[0]]))
			if err != nil {
				told = err.Error()
				t.Rows[i].Failures = append(t.Rows[i].Failures, told)
			} else {
				t.Rows[i].Measurements = append(t.Rows[i].Measurements, v)
			}
			fmt.Fprintf(os.Stderr, "%s, round %d of %d, %s: %s\n", w.name, round+1, n, some[i].name, told)
		}
	}
	t.judge(w.goals)
	return t, nil
}

// titled is a system or a workload.
type titled interface{ title() string }

func list[T titled](all []T) string {
	var names []string
	for _, x := range all {
		names = append(names, x.title())
	}
	return strings.Join(names, ", ")
}

// pick returns those of all that names names, in the order of all; all of them if it names none.
func pick[T titled](all []T, names string) ([]T, error) {
	if names == "" {
		return all, nil
	}
	wanted := strings.Split(names, ",")
	var picked []T
	for _, x := range all {
		if i := slices.Index(wanted, x.title()); i >= 0 {
			picked = append(picked, x)
			wanted = slices.Delete(wanted, i, i+1)
		}
	}
	if len(wanted) > 0 {
		return nil, fmt.Errorf("%q is unknown, or given twice; allowed: %s", wanted[0], list(all))
	}
	return picked, nil
}
