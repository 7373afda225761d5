"""From functions to programs: the only room that knows devices, processes, pmap, compilation."""
