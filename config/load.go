package config

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Override is a value from outside of file and environment, such as a flag. It wins over both.
type Override struct {
	// Source names the value in errors, such as "--listen".
	Source string
	// Key is a key as [Fields] lists it, such as "data_dir" or "registries.ghcr.io.hosts", or "upstream" for the
	// endpoints of the default registry, whichever that is.
	Key string
	// Value is as in the environment.
	Value string
}

// maxErrors is how many errors are reported: more than anyone reads, and few enough for a log.
const maxErrors = 100

// Load returns the effective configuration: the defaults, then the file at path ("" is none), then the variables in
// environ, which is as from [os.Environ], then the overrides. The error joins what is wrong, one line each.
func Load(path string, environ []string, overrides ...Override) (*Config, error) {
	l := &loader{config: Default(), file: path, origins: origins{}}
	if path != "" {
		root, err := readFile(path)
		if err != nil {
			return nil, err
		}
		if root != nil {
			l.decode(root, reflect.ValueOf(l.config).Elem(), "", root.Line)
		}
	}
	l.environment(environ)
	l.override(overrides)
	l.distrusted()
	l.config.normalize()
	errs := append(l.errs, l.config.check(l.origins)...)
	if len(errs) > maxErrors {
		errs = append(errs[:maxErrors], fmt.Errorf("and more: the first %d errors are shown", maxErrors))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return l.config, nil
}

// distrusted reports the registries whose first endpoint would be trusted for want of another and is said not to be.
func (l *loader) distrusted() {
	for _, name := range slices.Sorted(maps.Keys(l.config.Registries)) {
		registry, key := l.config.Registries[name], item(join("registries", name)+".endpoints", 0)+".trusted"
		if from, given := l.origins[key]; given && !from.refused && !registry.trusts() {
			l.fail(key, "none of the endpoints is trusted; allowed: true for one of them, or to leave the key out for the first")
		}
	}
}

// loader lays values over a configuration, notes where each came from, and gathers what is wrong.
type loader struct {
	config  *Config
	file    string
	origins origins
	errs    []error
}

// origins says where values were given, by key.
type origins map[string]origin

// origin is a line of a file, or, where line is 0, a variable or a flag.
type origin struct {
	source  string
	line    int
	refused bool // what was given there is an error already, and was not taken
	empty   bool // what was given there is a list of nothing
}

// of returns where the value at key, or what contains it, was given. The zero origin is nowhere.
func (o origins) of(key string) origin {
	from, ok := o[key]
	for end := strings.LastIndexAny(key, ".["); !ok && end > 0; end = strings.LastIndexAny(key[:end], ".[") {
		from, ok = o[key[:end]]
	}
	return from
}

// errorf returns an error about the value at key: it begins with where that was given. A value that was not given is
// named by its key alone.
func (from origin) errorf(key, format string, args ...any) error {
	where := clip(key)
	switch {
	case from.line > 0 && key == "":
		where = fmt.Sprintf("%s:%d", from.source, from.line)
	case from.line > 0:
		where = fmt.Sprintf("%s:%d: %s", from.source, from.line, where)
	case from.source != "":
		where = from.source
	}
	return fmt.Errorf("%s: %s", where, oneLine(fmt.Sprintf(format, args...)))
}

// replace notes that the value at key, with all that was in it, gave way to one from elsewhere.
func (o origins) replace(key string, from origin) {
	for k := range o {
		if strings.HasPrefix(k, key+"[") {
			delete(o, k)
		}
	}
	o[key] = from
}

// hollow notes that the list at key was given, and has nothing in it.
func (l *loader) hollow(key string, length int) {
	from := l.origins[key]
	from.empty = length == 0
	l.origins[key] = from
}

// fail reports that the value at key is wrong by itself.
func (l *loader) fail(key, format string, args ...any) {
	from := l.origins.of(key)
	l.errs = append(l.errs, from.errorf(key, format, args...))
	from.refused = true
	l.origins[key] = from
}
