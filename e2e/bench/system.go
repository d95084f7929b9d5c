package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/entrepot/entrepot/e2e/testbed"
)

// system is a way from the client to the content.
type system struct {
	name string
	// thorough systems are for full runs, unless asked for by name.
	thorough bool
	// able is nil if the system can run anywhere; it says why one can't run here.
	able func(ctx context.Context, s *scene) error
	// command says how to run it, and writes its configuration. It is nil if there is nothing to run.
	command func(ctx context.Context, s *scene, p place) (testbed.Command, error)
}

func (y system) title() string { return y.name }

// place is what a system is given to run.
type place struct {
	// dir is empty and its own.
	dir string
	// address is where clients ask it, admin another one for its own use, upstream where it asks.
	address, admin, upstream string
	// data is where entrepot's content is, in dir if empty.
	data string
	// tagTTL is how long a tag may be served without asking upstream, its default if 0.
	tagTTL time.Duration
	// settings are further ones of entrepot's, from the environment.
	settings []string
}

// The names that goals refer to.
const (
	nobody         = "direct"
	mirror         = "entrepot"
	mirrorLayers   = "entrepot-layers"
	mirrorSingle   = "entrepot-1"
	peerNginx      = "nginx"
	peerSquid      = "squid"
	peerRegistry   = "distribution"
	limitStatic    = "static"
	limitFloor     = "floor"
	limitFill      = "floor-fill"
	defaultTagTTL  = time.Minute // entrepot's
	readyEvery     = time.Millisecond
	connectTimeout = 2 * time.Second
)

var systems = []system{
	{name: nobody},
	entrepot(mirror),
	thorough(entrepot(mirrorSingle, "ENTREPOT_REGISTRIES_DOCKER_IO_CONNECTIONS_PER_BLOB=1")),
	entrepot(mirrorLayers, "ENTREPOT_CACHE_READ_AHEAD=layers"),
	{name: peerRegistry, thorough: true, command: distribution},
	{name: peerNginx, able: needs("nginx"), command: nginxCache},
	{name: peerSquid, thorough: true, able: needs("squid"), command: squid},
	{name: limitStatic, able: needs("nginx"), command: nginxFiles},
	{name: limitFloor, command: floor},
	{name: limitFill, thorough: true, command: leastFill},
}

func thorough(y system) system { y.thorough = true; return y }

// entrepot is the mirror with its defaults but for settings.
func entrepot(name string, settings ...string) system {
	y := system{name: name}
	y.able = func(ctx context.Context, s *scene) error {
		// An older binary, given by ENTREPOT_BIN, may not know the settings.
		_, err := testbed.Run(ctx, settings, s.bed.Programs.Entrepot, "config", "check")
		return err
	}
	y.command = func(_ context.Context, s *scene, p place) (testbed.Command, error) {
		data := p.data
		if data == "" {
			data = filepath.Join(p.dir, "data")
		}
		c := testbed.Command{
			Name: name,
			Path: s.bed.Programs.Entrepot,
			Args: []string{
				"serve", "--listen", p.address, "--admin-listen", p.admin, "--data-dir", data, "--upstream", "http://" + p.upstream,
			},
			Env:   slices.Concat(settings, p.settings),
			Ready: answers("http://" + p.admin + "/readyz"),
		}
		if p.tagTTL > 0 {
			c.Env = append(c.Env, "ENTREPOT_CACHE_TAG_TTL="+p.tagTTL.String())
		}
		return c, nil
	}
	return y
}

// subject is a system that runs.
type subject struct {
	address string
	admin   string           // where its own figures are, if it has any
	process *testbed.Process // nil if there is none
	// ready is how long it took from its start until it answered.
	ready time.Duration
}

// start runs a system.
func (s *scene) start(ctx context.Context, y system, p place) (subject, error) {
	if y.command == nil {
		return subject{address: p.upstream}, nil
	}
	var err error
	if p.address, err = testbed.FreeAddress(); err != nil {
		return subject{}, err
	}
	if p.admin, err = testbed.FreeAddress(); err != nil {
		return subject{}, err
	}
	command, err := y.command(ctx, s, p)
	if err != nil {
		return subject{}, err
	}
	command.Log = filepath.Join(p.dir, "log")
	start := time.Now()
	process, err := testbed.Start(ctx, command)
	if err != nil {
		return subject{}, err
	}
	s.bed.OnClose(process.Stop)
	return subject{address: p.address, admin: p.admin, process: process, ready: time.Since(start)}, nil
}

// end ends it.
func (j subject) end() error {
	if j.process == nil {
		return nil
	}
	return j.process.Stop()
}

// answers returns a condition that is met when a GET of url succeeds. It asks much more often than [testbed.Until] does:
// how long a start takes is measured.
func answers(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		client := http.Client{Timeout: connectTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
		for {
			err := answer(ctx, &client, url)
			if err == nil {
				return nil
			}
			select {
			case <-ctx.Done():
				return err
			case <-time.After(readyEvery):
			}
		}
	}
}

func answer(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// seconds spells a duration in whole seconds, as other programs' configuration wants it.
func seconds(d time.Duration) string { return strconv.Itoa(int(d.Seconds())) }
