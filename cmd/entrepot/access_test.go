package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/entrepot/entrepot/config"
)

func TestPasswordsAreOpenedOnceAFile(t *testing.T) {
	dir := t.TempDir()
	at := func(name, text string) *config.Config {
		t.Helper()
		c := config.Default()
		c.Access.HtpasswdFile = filepath.Join(dir, name)
		if err := os.WriteFile(c.Access.HtpasswdFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return c
	}
	const alice = "alice:$2y$04$abcdefghijklmnopqrstuuMYSTpEoBLdR6dHtWoEHVbG0pFTGLPWq\n"
	none := passwords{log: zap.NewNop()}
	one, err := none.of(at("one", alice))
	again, errAgain := one.of(at("one", alice))
	if err := errors.Join(err, errAgain); err != nil || one.open == nil || again.open != one.open {
		t.Errorf("a file is opened again: %v", err)
	}
	if wrong, err := one.of(at("wrong", "alice:hunter2\n")); err == nil || !strings.Contains(err.Error(), "wrong") ||
		strings.Contains(err.Error(), "hunter2") || wrong.open != one.open {
		t.Errorf("of a wrong file: %v", err)
	}
	two, err := one.of(at("two", alice))
	if err != nil || two.open == nil || two.open == one.open {
		t.Errorf("another file is not opened: %v", err)
	}
	if back, err := two.of(config.Default()); err != nil || back.open != nil {
		t.Errorf("no file: %+v, %v", back, err)
	}
}
