"""The baseline of the transfer benchmark: a pyarrow.flight server that sends one preloaded table. The argument is a Parquet file."""

import sys

import pyarrow.flight as flight
import pyarrow.parquet as parquet


class Bare(flight.FlightServerBase):
    def __init__(self, table):
        super().__init__("grpc://127.0.0.1:0")
        self.table = table

    def do_get(self, context, ticket):
        return flight.RecordBatchStream(self.table)


if __name__ == "__main__":
    server = Bare(parquet.read_table(sys.argv[1]).combine_chunks())
    print(server.port, flush=True)
    server.serve()
