// Command bench measures what entrepot does to a pull, side by side with other ways to the same content, in one run on
// one machine: a registry, a road to it that counts and caps, and each system in turn on that road.
//
// Every measurement starts its system on an empty store. The systems take turns round by round, so that a machine that
// is slower for a while is so for all of them. The client checks every digest: a fast wrong answer is an error.
//
// The registry is a real one: of the processor time that an uncapped pull takes it needs a fifth, and a tenth when the
// pull is entrepot's, so that a simpler server would not change the picture.
//
// It needs Linux and Go and nothing else: no root, no container engine, no internet but for Go modules. All of it takes
// some six minutes, go run ./bench -quick two.
package main

import (
	"context"
	"encoding/json"
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

const (
	// rounds give a median that one odd round does not move; quickRounds are the fewest of which that is true.
	rounds, quickRounds = 5, 3
	// blobSize is a layer of a large image, such as those with CUDA inside. quickBlobSize still takes seconds when capped.
	blobSize, quickBlobSize = 512 << 20, 256 << 20
)

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
	size      int64
	workloads []workload
	systems   []system
	// named is whether the systems were asked for by name: then one that can't run is an error.
	named bool
	json  string
}

func parse(args []string) (options, error) {
	o := options{size: blobSize}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	quick := flags.Bool("quick", false, "a smaller blob, and fewer rounds")
	workloadNames := flags.String("workload", "", "workloads to run, with commas between them: "+list(workloads)+" (default all)")
	systemNames := flags.String("system", "", "systems to measure, with commas between them: "+list(systems)+" (default all)")
	flags.IntVar(&o.rounds, "rounds", 0, fmt.Sprintf("measurements of each system and workload (default %d, quick %d)", rounds, quickRounds))
	flags.StringVar(&o.json, "json", "", "write all measurements to this `file` too")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("%q: there are no arguments, only flags", flags.Arg(0))
	}
	if *quick {
		o.size = quickBlobSize
	}
	switch {
	case o.rounds < 0:
		return o, fmt.Errorf("-rounds %d: allowed: 1 and more", o.rounds)
	case o.rounds == 0 && *quick:
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
	o.named = *systemNames != ""
	return o, nil
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "building what is measured, and filling the registry …")
	s, err := newScene(ctx, o.size)
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
		r.Tables = append(r.Tables, t)
		if err := t.print(out); err != nil {
			return err
		}
	}
	if o.json == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.json, append(text, '\n'), 0o644)
}

// able leaves out the systems that can't run here, and says so.
func able(ctx context.Context, s *scene, o options) ([]system, error) {
	var some []system
	for _, y := range o.systems {
		err := y.able(ctx, s)
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

// measure runs one workload on all systems, in rounds.
func measure(ctx context.Context, s *scene, w workload, o options) (table, error) {
	t := table{Workload: w.name, About: w.about(o.size), Rows: make([]row, len(o.systems))}
	for i, y := range o.systems {
		t.Rows[i].System = y.name
	}
	for round := range o.rounds {
		for turn := range o.systems {
			// Who comes first changes by the round: each system follows each other one.
			i := (round + turn) % len(o.systems)
			m, err := s.measure(ctx, w, o.systems[i])
			if err != nil {
				return t, fmt.Errorf("%s, %s, round %d: %w", w.name, o.systems[i].name, round+1, err)
			}
			t.Rows[i].Measurements = append(t.Rows[i].Measurements, m)
			fmt.Fprintf(os.Stderr, "%s, round %d of %d, %s: %.2f s\n", w.name, round+1, o.rounds, o.systems[i].name, m.Seconds)
		}
	}
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
