"""Fits the plan's constants to the calibration table and shows how far off each row is: `make fit`."""

from slimtune.plan.calibration import read_table, write_constants


def main() -> None:
    rows = read_table()
    write_constants(rows)
    for row in rows:
        at = row.setting
        print(
            f"{row.use:4} {row.error:+7.1%} {row.predicted_gib:6.2f} for {row.reserved_gib:6.2f}  {row.spec.key} "
            f"{row.weights} {at.precision} r {at.lora_r} {at.micro_batch} x {at.row_tokens}"
            f"{' checkpointed' * at.checkpointing}{' tiled' * at.tiled_mlp}"
        )


if __name__ == "__main__":
    main()
