// Command entrepot is a pull-through caching mirror for container registries.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal finds the default again and ends the program at once.
	context.AfterFunc(ctx, stop)
	err := program(os.Environ(), os.Stdout, os.Stderr).ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "entrepot: "+err.Error())
		os.Exit(1)
	}
}

// program returns the command line. What it prints for people and programs to read goes to out, the log to log.
func program(environ []string, out, log io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "entrepot",
		Short: "A pull-through caching mirror for container registries",
		Long: `entrepot is a pull-through caching mirror for container registries.

Container runtimes pull through it; it answers from its cache when it can, and otherwise streams from the
registry while it stores, with one transfer however many clients wait for the same layer.

  entrepot serve                                    mirror Docker Hub on :5000, keeping content in ./data
  entrepot serve --config /etc/entrepot.yaml        mirror what the file says
  entrepot cache stats                              what the cache holds and takes, and how it is
  entrepot verify                                   read all that is kept, and mend it (while nothing is served)
  entrepot config check --config /etc/entrepot.yaml show what the file, the environment and the defaults add up to

Then point dockerd at it: { "registry-mirrors": ["http://HOST:5000"] } in /etc/docker/daemon.json.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(out)
	root.SetErr(log)
	root.AddCommand(serveCommand(environ, log), cacheCommand(environ), verifyCommand(environ), configCommand(environ), versionCommand())
	return root
}
