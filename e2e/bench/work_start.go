package main

import "time"

// starts are how the program comes up.
var starts = []workload{
	{
		name:    "idle",
		what:    "a start on an empty store, and two seconds of nothing",
		systems: caches,
		columns: []metric{ready, resident},
		goals:   []goal{most(ready, 0.3), most(resident, 35)},
		run: func(t *trial) (values, error) {
			if err := t.start(); err != nil {
				return nil, err
			}
			if err := t.pause(2 * time.Second); err != nil {
				return nil, err
			}
			n, err := t.process.Memory()
			return values{ready: t.ready.Seconds(), resident: inMiB(n)}, err
		},
	},
}
