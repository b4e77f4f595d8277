package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// maxConfigBytes bounds a configuration file.
const maxConfigBytes = 1 << 20

// applyConfigFile sets every flag that the file names and the command line does not. An empty path means the default file,
// which need not exist.
func applyConfigFile(flags *pflag.FlagSet, path string) error {
	optional := path == ""
	if optional {
		path = defaultConfigFile
	}
	content, err := os.ReadFile(path)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	if len(content) > maxConfigBytes {
		return fmt.Errorf("read configuration %s: %d bytes, the limit is %d", path, len(content), maxConfigBytes)
	}
	var values map[string]any
	if err := yaml.UnmarshalStrict(content, &values); err != nil {
		return fmt.Errorf("read configuration %s: %w", path, err)
	}
	for name, value := range values {
		flag := flags.Lookup(name)
		if flag == nil || name == "config" || name == "help" {
			return fmt.Errorf("read configuration %s: %q is no setting (`podvine agent --help` lists them)", path, name)
		}
		if flag.Changed {
			continue
		}
		text, err := flagText(value)
		if err != nil {
			return fmt.Errorf("read configuration %s: %s: %w", path, name, err)
		}
		if err := flags.Set(name, text); err != nil {
			return fmt.Errorf("read configuration %s: %s: %w", path, name, err)
		}
	}
	return nil
}

// flagText writes a value of the file as it would stand on the command line.
func flagText(value any) (string, error) {
	switch v := value.(type) {
	case string, bool, float64, int64:
		return fmt.Sprint(v), nil
	case []any:
		texts := make([]string, len(v))
		for i, element := range v {
			text, ok := element.(string)
			if !ok {
				return "", fmt.Errorf("element %d is not a string", i)
			}
			texts[i] = text
		}
		return strings.Join(texts, ","), nil
	}
	return "", fmt.Errorf("want a string, a number, true, false or a list of strings, not %T", value)
}
