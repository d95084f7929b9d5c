// Command demo shows on one machine, in half a minute, what entrepot is for. It starts a registry, a gate that counts
// and slows what crosses from it, and the entrepot built from this tree; pushes images; and plays four scenes to
// whoever watches: a miss, a hit, many clients at once, and an upstream that is down.
//
// It needs Go and nothing else: no root, no container engine, no internet but for Go modules. What it tells it has
// checked, digests included; if a scene does not hold it says so and exits with 1.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, newTeller(os.Stdout))
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run plays all scenes, also after one that did not hold: the rest may still be worth seeing.
func run(ctx context.Context, tell *teller) (err error) {
	tell.title("entrepot: images are landed once, and served to many")
	s, err := newStage(ctx, tell)
	if s != nil {
		defer func() { err = errors.Join(err, s.close()) }()
	}
	if err != nil {
		return err
	}
	var failures []error
	for i, play := range []func(context.Context) error{s.firstPull, s.secondPull, s.manyClients, s.upstreamDown} {
		if err := play(ctx); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			tell.broke(err)
			failures = append(failures, fmt.Errorf("scene %d did not hold: %w", i+1, err))
		}
	}
	if len(failures) == 0 {
		tell.farewell()
	}
	return errors.Join(failures...)
}
