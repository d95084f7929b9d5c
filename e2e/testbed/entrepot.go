package testbed

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// Entrepot is an entrepot on a data directory of its own.
type Entrepot struct {
	// Address is the host and port that clients pull from; Admin is the other listener's.
	Address, Admin string
	// Data is its data directory.
	Data string
	// Process is the one that was started last.
	Process *Process
	dir     string
	command Command
	starts  int
}

// EntrepotOptions say how to run one.
type EntrepotOptions struct {
	// Upstream replaces Docker Hub's URL.
	Upstream string
	// Config is the text of a configuration file; none if empty.
	Config string
	// Env are settings from the environment.
	Env []string
	// DataDir is its data directory if it is to have a certain one.
	DataDir string
	// User is who it runs as, see [Command]. The data directory, if it is there, has to be that user's already.
	User int
}

// StartEntrepot starts an entrepot with an empty cache.
func (b *Bed) StartEntrepot(ctx context.Context, o EntrepotOptions) (*Entrepot, error) {
	dir, err := b.Subdir("entrepot")
	if err != nil {
		return nil, err
	}
	e := &Entrepot{dir: dir, Data: o.DataDir}
	if e.Data == "" {
		e.Data = filepath.Join(dir, "data")
	}
	if e.Address, err = FreeAddress(); err != nil {
		return nil, err
	}
	if e.Admin, err = FreeAddress(); err != nil {
		return nil, err
	}
	e.command = Command{
		Name: "entrepot",
		Path: b.Programs.Entrepot,
		Env:  o.Env,
		User: o.User,
		Args: []string{
			"serve", "--listen", e.Address, "--admin-listen", e.Admin, "--data-dir", e.Data,
		},
		Ready: answers("http://"+e.Admin+"/readyz", http.StatusOK),
	}
	if o.Config != "" {
		file := filepath.Join(dir, "entrepot.yaml")
		// What it has to keep to itself is in files of its own: this one may be read by whoever it runs as.
		if err := os.WriteFile(file, []byte(o.Config), 0o644); err != nil {
			return nil, err
		}
		e.command.Args = append(e.command.Args, "--config", file)
	}
	if o.Upstream != "" {
		e.command.Args = append(e.command.Args, "--upstream", o.Upstream)
	}
	if o.User != 0 {
		if err := os.Chown(dir, o.User, o.User); err != nil {
			return nil, err
		}
	}
	if err := e.Start(ctx); err != nil {
		return nil, err
	}
	b.OnClose(e.Stop)
	return e, nil
}

// Start starts it again, on the data that it left, after Stop or Kill.
func (e *Entrepot) Start(ctx context.Context) error { return e.start(ctx, e.command) }

// Begin is Start without waiting for it to be ready.
func (e *Entrepot) Begin(ctx context.Context) error {
	c := e.command
	c.Ready = nil
	return e.start(ctx, c)
}

func (e *Entrepot) start(ctx context.Context, c Command) error {
	c.Log = e.logFile(e.starts)
	e.starts++
	p, err := Start(ctx, c)
	if err != nil {
		return err
	}
	e.Process = p
	return nil
}

// Stop ends it as an operator does. It has to end by itself, and well. Stopping what was killed is no error.
func (e *Entrepot) Stop() error {
	if err := e.Process.Stop(); err != nil {
		return err
	}
	if e.Process.killed {
		return nil
	}
	return e.Process.failure()
}

// Kill ends it without a warning, like a machine that runs out of memory.
func (e *Entrepot) Kill() error { return e.Process.Kill() }

// Remove stops it and removes all that it had on disk, its log included.
func (e *Entrepot) Remove() error { return errors.Join(e.Stop(), os.RemoveAll(e.dir)) }

// URL is where clients pull from.
func (e *Entrepot) URL() string { return "http://" + e.Address }

// Kept waits until the blobs of p are in the cache for good. A client has a body's last byte a little earlier: it goes
// out as soon as the digest has matched, and the file is made durable after that.
func (e *Entrepot) Kept(ctx context.Context, p Pulled) error {
	for _, a := range p.Answers {
		if !strings.Contains(a.Path, "/blobs/") {
			continue
		}
		if err := Until(ctx, a.Path+" to be kept", e.hits(a.Path)); err != nil {
			return err
		}
	}
	return nil
}

// KeptBlob is [Entrepot.Kept] for one blob of an image that another client pulled.
func (e *Entrepot) KeptBlob(ctx context.Context, i Image, digest string) error {
	path := "/v2/" + i.Repository + "/blobs/" + digest
	return Until(ctx, path+" to be kept", e.hits(path))
}

// hits returns a condition for Until: path is answered from the cache.
func (e *Entrepot) hits(path string) func(context.Context) error {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, e.URL()+path, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if verdict(resp.Header) != "hit" {
			return fmt.Errorf("HEAD %s: %s, verdict %q", path, resp.Status, verdict(resp.Header))
		}
		return nil
	}
}

// Log returns all that it has written since it was first started.
func (e *Entrepot) Log() (string, error) {
	var all []byte
	for i := range e.starts {
		b, err := os.ReadFile(e.logFile(i))
		if err != nil {
			return "", err
		}
		all = append(all, b...)
	}
	return string(all), nil
}

func (e *Entrepot) logFile(start int) string {
	return filepath.Join(e.dir, fmt.Sprintf("log-%d", start))
}
