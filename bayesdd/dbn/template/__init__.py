"""What a template network is: variables, edges, states, and the columns and sites that follow."""
