// Load a compose file exactly as Docker Compose does and print what it makes of it as JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	options, err := cli.NewProjectOptions(
		[]string{os.Args[1]},
		cli.WithOsEnv,
		cli.WithDefaultProfiles("*"),
		cli.WithResolvedPaths(false),
	)
	if err == nil {
		project, failure := options.LoadProject(context.Background())
		if failure == nil {
			failure = json.NewEncoder(os.Stdout).Encode(project)
		}
		err = failure
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
