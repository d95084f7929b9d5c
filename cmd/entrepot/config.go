package main

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/entrepot/entrepot/config"
)

// flags are the few settings that people set by hand; the file and the environment have them all.
type flags struct {
	config                                 string
	listen, adminListen, dataDir, upstream string
	offline                                bool
}

func (f *flags) register(cmd *cobra.Command) {
	f.registerData(cmd)
	set := cmd.Flags()
	set.StringVar(&f.listen, "listen", "", `address to serve clients on (default ":5000")`)
	set.StringVar(&f.adminListen, "admin-listen", "", `address of metrics and health, or "off" (default "127.0.0.1:5001")`)
	set.BoolVar(&f.offline, "offline", false, "serve what is there, and dial nobody")
	set.StringVar(&f.upstream, "upstream", "", `URL of the default registry's endpoint (default "https://registry-1.docker.io")`)
}

// registerData has the flags of what works on a data directory.
func (f *flags) registerData(cmd *cobra.Command) {
	set := cmd.Flags()
	set.StringVar(&f.config, "config", "", "configuration file (YAML); also "+config.EnvFile)
	set.StringVar(&f.dataDir, "data-dir", "", `directory of the cache (default "./data")`)
}

// load returns the configuration that the file, the environment and the flags add up to, each above the one before.
func (f *flags) load(cmd *cobra.Command, environ []string) (*config.Config, error) {
	path := f.config
	for _, v := range environ {
		if file, ok := strings.CutPrefix(v, config.EnvFile+"="); ok && path == "" {
			path = file
		}
	}
	var overrides []config.Override
	for _, o := range []struct{ flag, key, value string }{
		{"listen", "listen", f.listen},
		{"admin-listen", "admin_listen", f.adminListen},
		{"data-dir", "data_dir", f.dataDir},
		{"upstream", "upstream", f.upstream},
		{"offline", "offline", strconv.FormatBool(f.offline)},
	} {
		if cmd.Flags().Changed(o.flag) {
			overrides = append(overrides, config.Override{Source: "--" + o.flag, Key: o.key, Value: o.value})
		}
	}
	return config.Load(path, environ, overrides...)
}

func configCommand(environ []string) *cobra.Command {
	var f flags
	check := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration and print what it adds up to, secrets hidden",
		Long: `Check the configuration: the file, the environment (ENTREPOT_…) and the flags, each above the one before.

Prints the effective configuration as YAML with secrets hidden, or everything that is wrong with it, each with the
file and line, and what is allowed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.load(cmd, environ)
			if err != nil {
				return err
			}
			return c.WriteYAML(cmd.OutOrStdout())
		},
	}
	f.register(check)
	cmd := &cobra.Command{Use: "config", Short: "Work with the configuration"}
	cmd.AddCommand(check)
	return cmd
}
