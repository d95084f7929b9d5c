package config

import (
	"reflect"
	"slices"
	"strings"
)

// Change is a key whose value differs between two configurations.
type Change struct {
	// Key is such as "registries.ghcr.io.hosts", or "registries.ghcr.io" for a registry that only one of them has.
	Key string
	// Field is the key as [Fields] lists it, such as "registries.<name>.hosts". Credentials are one.
	Field string
}

// Changes lists what differs between two configurations, in the order of the file.
func Changes(before, after *Config) (all []Change) {
	compare(reflect.ValueOf(before).Elem(), reflect.ValueOf(after).Elem(), "", "", func(key, field string) {
		all = append(all, Change{key, field})
	})
	return all
}

func compare(before, after reflect.Value, key, field string, differ func(key, field string)) {
	switch t := before.Type(); {
	case t.Kind() == reflect.Map:
		names := append(namesOf(before), namesOf(after)...)
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			a, b := before.MapIndex(reflect.ValueOf(name)), after.MapIndex(reflect.ValueOf(name))
			if !a.IsValid() || !b.IsValid() {
				differ(join(key, name), join(field, "<name>"))
				continue
			}
			compare(a, b, join(key, name), join(field, "<name>"), differ)
		}
	case t == reflect.TypeFor[Plan]():
		if !before.Interface().(Plan).Equal(after.Interface().(Plan)) {
			differ(key, field)
		}
	case t.Kind() == reflect.Struct && !isLeaf(t):
		i := 0
		for name, part := range fields(before) {
			compare(part, after.Field(i), join(key, name), join(field, name), differ)
			i++
		}
	case t.Kind() == reflect.Slice && before.Len()+after.Len() == 0: // none, and an empty list
	case !reflect.DeepEqual(before.Interface(), after.Interface()):
		differ(key, field)
	}
}

// Within reports whether a key is a path of the file or lies below it.
func (c Change) Within(path string) bool {
	return c.Field == path || strings.HasPrefix(c.Field, path+".")
}
