package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/entrepot/entrepot/e2e/testbed"
)

// The passwords of these tests, before and after they are replaced.
var (
	before = testbed.Credentials{Username: "ci", Password: "first-correct-horse"}
	after  = testbed.Credentials{Username: "ci", Password: "second-battery-staple"}
)

// TestCredentialsAreReplacedDuringPulls runs pulls of images that nobody has pulled yet from a registry with htpasswd and a
// certificate of its own authority, and replaces the password in the middle of them, wherever entrepot has it from.
func TestCredentialsAreReplacedDuringPulls(t *testing.T) {
	registry, err := bed.StartSecureRegistry(running, &before)
	if err != nil {
		t.Fatal(err)
	}
	const pulls = 12
	var pushed []testbed.Image
	for n := range pulls {
		i, err := bed.PushNoise(running, registry, fmt.Sprintf("corp/app-%d", n), "1.0", byte(n), 300<<10)
		if err != nil {
			t.Fatal(err)
		}
		pushed = append(pushed, i)
	}
	for _, tt := range []struct {
		name string
		// credentials is the value of that key, for a password in a file, and programs in a directory.
		credentials func(file, dir string) string
		// runs is how often a program is run: at first, and when the registry has refused what it said.
		runs int
	}{
		{"password file", func(file, _ string) string { return fmt.Sprintf("{username: ci, password_file: %q}", file) }, 0},
		{"docker config with a helper", func(_, dir string) string { return fmt.Sprintf("{docker_config: %q}", dir+"/config.json") }, 2},
		{"helper", func(string, string) string { return "{helper: e2e, lifetime: 12h}" }, 2},
		{"exec", func(_, dir string) string {
			return fmt.Sprintf("{username: ci, exec: [%q], lifetime: 12h}", dir+"/program")
		}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := registry.SetPasswords(before); err != nil {
				t.Fatal(err)
			}
			dir := workDir(t, "credentials")
			file := filepath.Join(dir, "password")
			replaceFile(t, file, before.Password+"\n")
			replaceFile(t, filepath.Join(dir, "config.json"), `{"credsStore":"e2e"}`)
			program(t, filepath.Join(dir, "program"), fmt.Sprintf("echo run >> %q; exec cat %q", dir+"/runs", file))
			program(t, filepath.Join(dir, "docker-credential-e2e"),
				fmt.Sprintf(`printf '{"Username":"ci","Secret":"%%s"}' "$(%q)"`, dir+"/program"))
			e := startEntrepot(t, testbed.EntrepotOptions{
				// Everybody may have everything: who may have what is not what this is about.
				Config: fmt.Sprintf("registries:\n  docker.io:\n    endpoints: [{url: %q, ca_file: %q}]\n    credentials: %s\n    expose: [\"**\"]\n",
					"https://"+registry.Address, registry.CAFile, tt.credentials(file, dir)),
				Env: []string{"PATH=" + dir + ":" + os.Getenv("PATH")},
			})
			pullDuring(t, e, pushed, func() {
				// What the frozen registry has not answered carries the old password, which it will refuse.
				if err := registry.Freeze(); err != nil {
					t.Fatal(err)
				}
				replaceFile(t, file, after.Password+"\n")
				if err := errors.Join(registry.SetPasswords(after), registry.Thaw()); err != nil {
					t.Fatal(err)
				}
			})
			runs, err := os.ReadFile(dir + "/runs")
			if n := strings.Count(string(runs), "run"); n != tt.runs || err != nil && tt.runs > 0 {
				t.Errorf("a program was run %d times, want %d (%v)", n, tt.runs, err)
			}
			log, err := e.Log()
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(log, before.Password) || strings.Contains(log, after.Password) {
				t.Error("a password is in the log")
			}
		})
	}
}

// pullDuring pulls the images, some at a time, and has something happen when half of them have been begun.
func pullDuring(t *testing.T, e *testbed.Entrepot, images []testbed.Image, happen func()) {
	t.Helper()
	var all errgroup.Group
	all.SetLimit(3)
	for n, i := range images {
		if n == len(images)/2 {
			happen()
		}
		all.Go(func() error {
			_, err := testbed.Pull(running, e.URL(), i.Repository, i.Tag, "amd64")
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
}

// program writes a shell script.
func program(t *testing.T, path, script string) {
	t.Helper()
	replaceFile(t, path, "#!/bin/sh\n"+script+"\n")
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

// replaceFile replaces a file as a secret's keeper does: by rename.
func replaceFile(t *testing.T, path, text string) {
	t.Helper()
	writeFile(t, path+"~", text)
	if err := os.Rename(path+"~", path); err != nil {
		t.Fatal(err)
	}
}
