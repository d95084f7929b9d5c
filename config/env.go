package config

import (
	"encoding"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// EnvFile is the variable that names the configuration file. It is for the program; [Load] passes over it.
const EnvFile = "ENTREPOT_CONFIG"

const envPrefix = "ENTREPOT_"

// envName is the variable of a key.
func envName(key string) string {
	return envPrefix + strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		}
		return '_'
	}, key)
}

// serviceLink matches the variables that Kubernetes adds to each pod for a service named entrepot or entrepot-…, a
// common name for ours: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
var serviceLink = regexp.MustCompile(`^ENTREPOT(_[A-Z0-9_]+)?_` +
	`(SERVICE_HOST=|SERVICE_PORT(_[A-Z0-9_]+)?=|PORT_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?=|PORT=(tcp|udp|sctp)://)` +
	`|^ENTREPOT_PORT=`)

// value is one that file and defaults give way to.
type value struct{ source, text string }

// environment lays the variables over the configuration.
func (l *loader) environment(environ []string) {
	values := map[string]value{}
	for _, variable := range environ {
		name, text, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, envPrefix) && name != EnvFile {
			values[name] = value{name, text}
		}
	}
	known := l.assign(values, envName)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !slices.Contains(known, name) && !serviceLink.MatchString(name+"="+values[name].text) {
			l.errs = append(l.errs, fmt.Errorf("%s: unknown variable; %sallowed: the path of a key, as in ENTREPOT_CACHE_MAX_SIZE",
				clip(name), l.variableHint(name, append(known, EnvFile))))
		}
	}
}

// variableHint says what may have been meant by an unknown variable.
func (l *loader) variableHint(name string, known []string) string {
	const table, users = envPrefix + "REGISTRIES_", envPrefix + "ACCESS_USERS_"
	if name == envPrefix+"UPSTREAM" { // by the name of the flag
		return "did you mean " + envName("registries."+clip(CanonicalRegistry(l.config.DefaultRegistry))+".endpoints") + "? "
	}
	if strings.HasPrefix(name, table) {
		for registry := range l.config.Registries {
			key := "registries." + registry
			switch {
			case len(l.config.Registries[registry].Credentials) > 1 && strings.HasPrefix(name, envName(key+".credentials")+"_"):
				return "of several credentials no variable could say which is meant: set them in the file; "
			case strings.HasPrefix(name, envName(key)+"_"):
				return didYouMean(name, known)
			}
		}
		return "its registry is not configured: name it in ENTREPOT_REGISTRIES; "
	}
	if strings.HasPrefix(name, users) && len(l.config.Access.Users) == 0 {
		return "its user is not configured: name it in ENTREPOT_ACCESS_USERS; "
	}
	return didYouMean(name, known)
}

// override lays the overrides over the configuration.
func (l *loader) override(overrides []Override) {
	values := map[string]value{}
	for _, o := range overrides {
		if o.Key == "upstream" {
			o.Key = "registries." + CanonicalRegistry(l.config.DefaultRegistry) + ".endpoints"
		}
		values[o.Key] = value{o.Source, o.Value}
	}
	known := l.assign(values, func(key string) string { return key })
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if !slices.Contains(known, key) {
			l.errs = append(l.errs, fmt.Errorf("%s: sets %s, which is no key", values[key].source, quote(key)))
		}
	}
}

// assign sets each key whose name has a value, and returns the names of all keys.
func (l *loader) assign(values map[string]value, nameOf func(key string) string) (names []string) {
	set := map[string]string{}
	walk(reflect.ValueOf(l.config).Elem(), "", func(key string, v reflect.Value) {
		name := nameOf(key)
		names = append(names, name)
		value, ok := values[name]
		if !ok {
			return
		}
		if first, twice := set[name]; twice {
			l.errs = append(l.errs, fmt.Errorf("%s: stands for both %s and %s; allowed: to set these in the file",
				value.source, first, key))
			return
		}
		set[name] = key
		l.origins.replace(key, origin{source: value.source})
		l.set(v, value.text, key)
	})
	return names
}

// set sets v, the value at key, from its text. A list is separated by commas and replaces what is there; a table is a list of
// names, which are added.
func (l *loader) set(v reflect.Value, text, key string) {
	switch v.Kind() {
	case reflect.Map:
		for name := range items(text) {
			if name = nameIn(v.Type(), name); v.IsNil() {
				v.Set(reflect.MakeMap(v.Type()))
			}
			if !v.MapIndex(reflect.ValueOf(name)).IsValid() {
				v.SetMapIndex(reflect.ValueOf(name), newEntry(v.Type()))
				l.origins[join(key, name)] = l.origins[key]
			}
		}
	case reflect.Slice:
		v.SetZero()
		for item := range items(text) {
			element := reflect.New(v.Type().Elem()).Elem()
			if endpoint, ok := element.Addr().Interface().(*Endpoint); ok {
				l.set(reflect.ValueOf(&endpoint.URL).Elem(), item, key)
			} else {
				l.set(element, item, key)
			}
			v.Set(reflect.Append(v, element))
		}
		l.hollow(key, v.Len())
	case reflect.Bool:
		if text != "true" && text != "false" {
			l.fail(key, "%s is unknown; allowed: true, false", quote(text))
			return
		}
		v.SetBool(text == "true")
	default:
		if to, ok := v.Addr().Interface().(encoding.TextUnmarshaler); !ok {
			v.SetString(text)
		} else if err := to.UnmarshalText([]byte(text)); err != nil {
			l.fail(key, "%s", err)
		}
	}
}

// nameIn is the one spelling of a name in a table.
func nameIn(table reflect.Type, name string) string {
	if table.Elem() == reflect.TypeFor[Registry]() {
		return CanonicalRegistry(name)
	}
	return name
}

// newEntry is an entry of a table before anything is given of it.
func newEntry(table reflect.Type) reflect.Value {
	if table.Elem() == reflect.TypeFor[Registry]() {
		return reflect.ValueOf(newRegistry())
	}
	return reflect.Zero(table.Elem())
}

// items yields what stands between the commas of a list, those within the braces of a pattern left out.
func items(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		start, braces := 0, 0
		for i := range len(text) + 1 {
			switch {
			case i < len(text) && text[i] == '{':
				braces++
			case i < len(text) && text[i] == '}':
				braces--
			case i == len(text) || text[i] == ',' && braces <= 0:
				if item := strings.TrimSpace(text[start:i]); item != "" && !yield(item) {
					return
				}
				start = i + 1
			}
		}
	}
}

// walk visits all that can be set by one text: leaves, lists, and tables, which are visited before their entries and may gain some
// by that. Of credentials there may be several, of which no text could say which is meant: they are passed over.
func walk(v reflect.Value, key string, visit func(key string, v reflect.Value)) {
	logins, areLogins := v.Interface().(Logins)
	switch {
	case areLogins && len(logins) > 1:
	case areLogins:
		var login Login
		if len(logins) == 1 {
			login = logins[0]
		}
		if walk(reflect.ValueOf(&login).Elem(), key, visit); !login.isZero() {
			v.Set(reflect.ValueOf(Logins{login}))
		}
	case isLeaf(v.Type()) || v.Kind() == reflect.Slice:
		visit(key, v)
	case v.Kind() == reflect.Map:
		visit(key, v)
		for _, name := range namesOf(v) {
			// An entry of a map can't be set in place.
			entry := reflect.New(v.Type().Elem()).Elem()
			entry.Set(v.MapIndex(reflect.ValueOf(name)))
			walk(entry, join(key, name), visit)
			v.SetMapIndex(reflect.ValueOf(name), entry)
		}
	default:
		for name, field := range fields(v) {
			walk(field, join(key, name), visit)
		}
	}
}

// namesOf returns the names in a table, in order.
func namesOf(table reflect.Value) (names []string) {
	for _, name := range table.MapKeys() {
		names = append(names, name.String())
	}
	slices.Sort(names)
	return names
}

// isLeaf reports whether a type is written as one text.
func isLeaf(t reflect.Type) bool {
	return t.Kind() == reflect.String || t.Kind() == reflect.Bool || reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// fields yields the keys and values of a struct.
func fields(v reflect.Value) iter.Seq2[string, reflect.Value] {
	return func(yield func(string, reflect.Value) bool) {
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
			if !yield(name, v.Field(i)) {
				return
			}
		}
	}
}

// Field describes one key of the configuration.
type Field struct {
	Key     string // path in the file, such as "cache.max_size" or "registries.<name>.hosts"
	Env     string // variable, such as "ENTREPOT_CACHE_MAX_SIZE" or "ENTREPOT_REGISTRIES_<NAME>_HOSTS"
	Default string // text of the default; "" where that is nothing
}

// Fields lists all keys, in the order of the file.
func Fields() []Field {
	const name = "<name>"
	c := Default()
	c.Registries = map[string]Registry{name: defaultRegistry(name)}
	c.Access.Users = map[string]User{name: {}}
	var all []Field
	walk(reflect.ValueOf(c).Elem(), "", func(key string, v reflect.Value) {
		field := Field{Key: key, Env: strings.Replace(envName(key), envName(name)[len(envPrefix):], "<NAME>", 1)}
		switch endpoints, ok := v.Interface().([]Endpoint); {
		case ok:
			field.Default = endpoints[0].URL.String()
		case key == "registries":
			field.Default = dockerHub
		case v.Kind() == reflect.Map:
			// Nobody.
		case !v.IsZero():
			field.Default = fmt.Sprint(v.Interface())
		}
		all = append(all, field)
	})
	return all
}
